//! The operator's teacher profiles, made ready to be asked.

use crate::config::TeacherSection;
use crate::secret;
use anyhow::{Context, bail};
use domain::Secret;
use domain::ports::{RateLimiter, RateLimits};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use teacher::{Prices, Profile, Provider, Teacher};

/// Every profile whose key is at hand. One that wants a key from an empty variable is left out: a job that names it is
/// refused, and the others continue.
///
/// # Errors
/// A profile that no teacher can be made of: it is named, with what to do.
pub(crate) fn open(
    sections: &BTreeMap<String, TeacherSection>,
    rate_limiter: &Arc<dyn RateLimiter>,
) -> anyhow::Result<BTreeMap<String, Teacher>> {
    let mut teachers = BTreeMap::new();
    for (name, section) in sections {
        let key = key(section).with_context(|| format!("teachers.{name}"))?;
        if key.is_empty() && !(section.api_key_env.is_empty() && section.api_key_file.is_empty()) {
            tracing::info!(teacher = name, "left out: it has no key");
            continue;
        }
        let profile = profile(name, section, key)?;
        let teacher =
            Teacher::new(profile, Arc::clone(rate_limiter)).with_context(|| format!("teachers.{name}"))?;
        teachers.insert(name.clone(), teacher);
    }
    Ok(teachers)
}

/// Why the profile `name` is left out without its key; `None` where it is not left out, or there is no such profile.
pub(crate) fn without_key(sections: &BTreeMap<String, TeacherSection>, name: &str) -> Option<String> {
    let section = sections.get(name)?;
    let place = match (section.api_key_file.as_str(), section.api_key_env.as_str()) {
        ("", "") => return None,
        ("", variable) => format!("set {variable}"),
        (file, _) => format!("write it into {file}"),
    };
    let empty = key(section).is_ok_and(|key| key.is_empty());
    empty.then(|| format!("`{name}` has no key here: {place}, or name another profile"))
}

/// The key, from its file or its variable.
fn key(section: &TeacherSection) -> anyhow::Result<Secret> {
    secret::read(&section.api_key_env, Path::new(&section.api_key_file)).context("api_key_file")
}

fn profile(name: &str, section: &TeacherSection, api_key: Secret) -> anyhow::Result<Profile> {
    let Some(provider) = Provider::from_name(&section.provider) else {
        let words = "is not a provider: use `openai_chat`, `openai_completions`, `anthropic` or `gemini`";
        bail!("teachers.{name}.provider: `{}` {words}", section.provider);
    };
    let limit = |number: u64| (number > 0).then_some(number);
    Ok(Profile {
        api_key,
        limits: RateLimits {
            requests_per_minute: limit(section.requests_per_minute),
            tokens_per_minute: limit(section.tokens_per_minute),
            tokens_in_per_minute: limit(section.tokens_in_per_minute),
            tokens_out_per_minute: limit(section.tokens_out_per_minute),
            requests_per_day: limit(section.requests_per_day),
            tokens_per_day: limit(section.tokens_per_day),
            ..RateLimits::default()
        },
        concurrency_max: section.concurrency_max.max(1),
        attempts_max: section.attempts_max.max(1),
        connect_timeout: Duration::from_secs(section.connect_seconds.max(1)),
        idle_timeout: Duration::from_secs(section.idle_seconds.max(1)),
        total_timeout: Duration::from_secs(section.total_seconds.max(1)),
        prices: Prices {
            in_per_million: section.price_in_per_million,
            out_per_million: section.price_out_per_million,
            ..Prices::default()
        },
        ..Profile::new(name, provider, &section.url, &section.model)
    })
}
