//! The models by name. A new version replaces the old one at once; requests that use the old one keep it.

use crate::InferenceError;
use crate::served::Served;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// What is served.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    models: RwLock<BTreeMap<String, Arc<Served>>>,
    /// Students that were served.
    count: AtomicU64,
}

impl Registry {
    pub(crate) fn insert(&self, mut served: Served) {
        served.number = self.count.fetch_add(1, Ordering::Relaxed);
        self.models
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(served.name.clone(), Arc::new(served));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.models.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Names and versions.
    pub(crate) fn versions(&self) -> BTreeMap<String, u64> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().map(|(name, served)| (name.clone(), served.version)).collect()
    }

    /// The models, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Served>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The model of a name; the only one for an empty name. Version 0 asks for the newest.
    pub(crate) fn find(&self, name: &str, version: u64) -> Result<Arc<Served>, InferenceError> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let known = || {
            let list: Vec<String> =
                models.values().map(|served| format!("{}@{}", served.name, served.version)).collect();
            if list.is_empty() { "none yet".to_owned() } else { list.join(", ") }
        };
        if name.is_empty() {
            let mut all = models.values();
            return match (all.next(), all.next()) {
                (Some(only), None) => Ok(Arc::clone(only)),
                (None, _) => Err(InferenceError::NoModel { name: String::new(), known: known() }),
                (Some(_), Some(_)) => Err(InferenceError::Ambiguous(known())),
            };
        }
        models.get(name).filter(|served| version == 0 || served.version == version).cloned().ok_or_else(
            || {
                let name = if version == 0 { name.to_owned() } else { format!("{name}@{version}") };
                InferenceError::NoModel { name, known: known() }
            },
        )
    }
}
