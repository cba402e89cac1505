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
use teacher::{Parameters, Prices, Profile, Provider, Teacher, TokensParameter};

/// Highest price of a million tokens, in any currency: what a call costs stays a number that can be added up.
const PRICE_MAX: f64 = 1e9;

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
        identity: section.identity.clone(),
        api_key,
        key_header: section.key_header.trim().to_owned(),
        headers: headers(section).with_context(|| format!("teachers.{name}"))?,
        parameters: parameters(section).with_context(|| format!("teachers.{name}"))?,
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
        prices: prices(section).with_context(|| format!("teachers.{name}"))?,
        batch: section.batch || provider.has_batches(),
        price_batch_factor: batch_factor(section).with_context(|| format!("teachers.{name}"))?,
        ..Profile::new(name, provider, &section.url, &section.model)
    })
}

/// The profile's further headers, with the values that their variables hold.
fn headers(section: &TeacherSection) -> anyhow::Result<Vec<(String, Secret)>> {
    let mut headers: Vec<(String, Secret)> =
        section.headers.iter().map(|(header, value)| (header.clone(), value.clone())).collect();
    for (header, variable) in &section.headers_env {
        let value = secret::read(variable, Path::new(""))?;
        if value.is_empty() {
            bail!("headers_env.{header}: the variable {variable} is empty: set it, or remove the header");
        }
        headers.push((header.clone(), value));
    }
    Ok(headers)
}

fn parameters(section: &TeacherSection) -> anyhow::Result<Parameters> {
    let written = &section.tokens_parameter;
    let Some(tokens_parameter) = TokensParameter::from_name(written) else {
        bail!("tokens_parameter: `{written}` is none: use `max_tokens` or `max_completion_tokens`");
    };
    let body = serde_json::to_value(&section.body).context("body")?;
    Ok(Parameters {
        tokens_parameter,
        send_temperature: section.send_temperature,
        send_top_p: section.send_top_p,
        send_stop: section.send_stop,
        send_seed: section.send_seed,
        thinking: section.thinking,
        thinking_tokens_max: section.thinking_tokens_max,
        body: body.as_object().cloned().unwrap_or_default(),
    })
}

fn prices(section: &TeacherSection) -> anyhow::Result<Prices> {
    let price = |key: &str, price: f64, least: f64| {
        if (least..=PRICE_MAX).contains(&price) {
            return Ok(price);
        }
        bail!("{key}: {price} is no price of a million tokens: write a number from 0 to {PRICE_MAX}")
    };
    let optional = |key: &str, written: f64| {
        // Whatever is below 0 stands for the price of tokens in.
        Ok::<_, anyhow::Error>(Some(price(key, written, f64::MIN)?).filter(|price| *price >= 0.0))
    };
    Ok(Prices {
        in_per_million: price("price_in_per_million", section.price_in_per_million, 0.0)?,
        out_per_million: price("price_out_per_million", section.price_out_per_million, 0.0)?,
        cached_per_million: optional("price_cached_per_million", section.price_cached_per_million)?,
        written_per_million: optional("price_written_per_million", section.price_written_per_million)?,
    })
}

fn batch_factor(section: &TeacherSection) -> anyhow::Result<f64> {
    let factor = section.price_batch_factor;
    if (0.0..=1.0).contains(&factor) {
        return Ok(factor);
    }
    bail!("price_batch_factor: {factor} is no part of a price: write a number from 0 to 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Result<Profile, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("distillery.toml");
        std::fs::write(&file, format!("[teachers.mine]\n{text}")).unwrap();
        let config = Config::load(Some(&file), []).map_err(|error| error.to_string())?;
        profile("mine", &config.teachers["mine"], Secret::new("key")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_profile_says_what_its_model_takes_and_costs() {
        let profile = read(
            "tokens_parameter = \"max_completion_tokens\"\nsend_stop = false\nidentity = \"weights of May\"\n\
             headers = { X-Title = \"a\" }\nheaders_env = { X-Path = \"PATH\" }\nbody = { n = 1, deep = { a = [0.5] } }\n\
             price_in_per_million = 2\nprice_cached_per_million = 0.5\n",
        )
        .unwrap();
        assert_eq!(profile.parameters.tokens_parameter, TokensParameter::MaxCompletionTokens);
        assert!(!profile.parameters.send_stop && profile.parameters.send_seed && profile.has_prices());
        assert_eq!(profile.identity(), Some("weights of May"));
        assert_eq!(
            serde_json::Value::Object(profile.parameters.body),
            serde_json::json!({"n": 1, "deep": {"a": [0.5]}})
        );
        let names: Vec<&str> = profile.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["X-Title", "X-Path"]);
        assert_eq!(
            (profile.prices.cached_per_million, profile.prices.written_per_million),
            (Some(0.5), None)
        );
        let plain = read("").unwrap();
        assert_eq!((plain.identity(), plain.has_prices()), (None, false));
        assert!(!plain.batch && read("batch = true\n").unwrap().batch);
        assert!(read("provider = \"gemini\"\n").unwrap().batch);
    }

    #[test]
    fn what_is_wrong_in_a_profile_is_named() {
        let check = |text: &str, words: &str| {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "wanted {words:?} in {error:?}");
        };
        check("tokens_parameter = \"max_new\"\n", "teachers.mine: tokens_parameter: `max_new` is none");
        check("price_in_per_million = -1.0\n", "price_in_per_million: -1 is no price");
        check("price_out_per_million = nan\n", "price_out_per_million: NaN is no price");
        check("price_out_per_million = 1e10\n", "from 0 to 1000000000");
        check("price_cached_per_million = inf\n", "price_cached_per_million");
        check("price_batch_factor = 2.0\n", "price_batch_factor: 2 is no part of a price");
        check("headers_env = { A = \"DISTILLERY_NO_SUCH_VARIABLE\" }\n", "headers_env.A: the variable");
        check("provider = \"openai\"\n", "is not a provider");
    }
}
