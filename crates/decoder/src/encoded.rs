//! A row that the encoder has read.

use crate::cache::Cache;
use crate::model::Model;
use crate::{Error, Result};
use std::sync::Arc;

/// A row that the encoder has read: keys and values for every block of the decoder. Cloning it copies nothing.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub(crate) cross: Arc<Cache>,
    pub(crate) length: usize,
    pub(crate) model: u64,
}

impl Encoded {
    /// Tokens of the row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.cross.bytes()
    }

    pub(crate) fn check(&self, model: &Model) -> Result<()> {
        if self.model == model.id {
            Ok(())
        } else {
            Err(Error::Input("the row was encoded by another model".to_owned()))
        }
    }
}
