//! Where the answers to a job's questions are: found again, or to be asked for.
//!
//! An answer is found by who gives it, the prompt and how it is sampled ([`CompletionRequest`]). Answers whose addresses do
//! not say who gave them (those of 0.1.0, which held the profile's name, and those of a server that did not tell at the
//! time) are used where they are the same teacher's; addresses that were forgotten lead to those that follow.

use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::shared::Shared;
use domain::fingerprint::{CompletionRequest, Sampled, TeacherIdentity};
use domain::ids::CompletionKey;
use domain::ports::Address;
use domain::records::{Completion, NewPrompt, Prompt};
use std::time::Duration;
use teacher::{Parameters, Profile, Question, Sampling, Teacher};

/// How long a server is waited for that is asked its model's name again: it may be away, and many prompts wait at once.
const NAME_WAIT: Duration = Duration::from_secs(1);

/// Who answers a job's questions, as far as that can be told when they are planned: each of its teachers, in order.
pub(crate) struct Askers(Vec<Asked>);

/// One teacher.
struct Asked {
    identity: TeacherIdentity,
    /// What the profile changes in every request.
    parameters: Vec<(String, String)>,
    profile: String,
    model: String,
    host: String,
}

/// A prompt in the making: its `key` is that of its question, whatever is known.
pub(crate) struct Addressed {
    prompt: NewPrompt,
    /// Where else an answer to the question may be, in order of preference.
    elsewhere: Vec<CompletionKey>,
}

impl Askers {
    /// The teachers of a job.
    pub(crate) async fn of(job: &PreparedJob) -> Self {
        let mut askers = Vec::with_capacity(job.teachers.len());
        for teacher in &job.teachers {
            askers.push(Asked::of(job, teacher).await);
        }
        Self(askers)
    }

    fn at(&self, profile: u32) -> Result<&Asked, HarvestError> {
        let asked = usize::try_from(profile).ok().and_then(|place| self.0.get(place));
        asked.ok_or_else(|| HarvestError::Stuck("this job has no teacher to ask".to_owned()))
    }

    /// The prompt that asks a question, with its addresses; `prompt` makes it of the first of them.
    pub(crate) fn address(
        &self,
        question: &Question,
        profile: u32,
        prompt: impl FnOnce(CompletionKey) -> NewPrompt,
    ) -> Result<Addressed, HarvestError> {
        let (key, elsewhere) = self.at(profile)?.keys(question);
        Ok(Addressed { prompt: prompt(key), elsewhere })
    }

    /// Where the answer to one question is, or will be.
    pub(crate) async fn find(
        &self,
        shared: &Shared,
        question: &Question,
        profile: u32,
    ) -> Result<Address, HarvestError> {
        let asked = self.at(profile)?;
        let (key, elsewhere) = asked.keys(question);
        let keys: Vec<CompletionKey> = std::iter::once(key).chain(elsewhere).collect();
        let mut addresses = shared.stores.prompts.addresses(&keys).await?.into_iter();
        let own = addresses.next().unwrap_or(Address { key, model: None });
        if own.model.is_some() {
            return Ok(own);
        }
        Ok(addresses.find(|address| asked.gave(address)).unwrap_or(own))
    }

    /// Gives each prompt the address that its answer has, or will have.
    pub(crate) async fn settle(
        &self,
        shared: &Shared,
        prompts: Vec<Addressed>,
    ) -> Result<Vec<NewPrompt>, HarvestError> {
        let store = &shared.stores.prompts;
        let keys: Vec<CompletionKey> = prompts.iter().map(|addressed| addressed.prompt.key).collect();
        let addresses = store.addresses(&keys).await?;
        let mut settled = Vec::with_capacity(prompts.len());
        let (mut places, mut elsewhere) = (Vec::new(), Vec::new());
        for (Addressed { mut prompt, elsewhere: others }, address) in prompts.into_iter().zip(addresses) {
            prompt.key = address.key;
            if address.model.is_none() {
                places.extend(others.iter().map(|_| settled.len()));
                elsewhere.extend(others);
            }
            settled.push(prompt);
        }
        let found = store.addresses(&elsewhere).await?;
        // From the last to the first, so that the first of several stays.
        for (place, address) in places.into_iter().zip(found).rev() {
            let Some(prompt) = settled.get_mut(place) else { continue };
            if self.at(prompt.profile)?.gave(&address) {
                prompt.key = address.key;
            }
        }
        Ok(settled)
    }
}

/// The answer to a question that was planned while its server was away and did not tell who answers, under the name that it
/// tells now: it was paid for by another job.
pub(crate) async fn told_since(
    shared: &Shared,
    job: &PreparedJob,
    prompt: &Prompt,
    question: &Question,
) -> Result<Option<Completion>, HarvestError> {
    let Some(teacher) = job.teacher(prompt.profile) else { return Ok(None) };
    // Nothing is asked of the server about the many prompts that were planned with its name.
    if Asked::unnamed(job, teacher).keys(question).0 != prompt.key {
        return Ok(None);
    }
    let Ok(identity) = tokio::time::timeout(NAME_WAIT, served(teacher)).await else { return Ok(None) };
    let asked = Asked { identity, ..Asked::unnamed(job, teacher) };
    let named = asked.keys(question).0;
    if named == prompt.key {
        return Ok(None);
    }
    let found = shared.stores.prompts.addresses(&[named]).await?;
    let Some(found) = found.first().filter(|address| address.model.is_some()) else { return Ok(None) };
    let Some(completion) = shared.stores.prompts.completion(found.key).await? else { return Ok(None) };
    let completion = Completion { key: prompt.key, ..completion };
    shared.stores.prompts.keep_completions(vec![completion.clone()]).await?;
    Ok(Some(completion))
}

impl Asked {
    /// A teacher of a job, before anybody asked who it is.
    fn unnamed(job: &PreparedJob, teacher: &Teacher) -> Self {
        let profile = teacher.profile();
        let mut parameters = changed(&profile.parameters);
        // What a row is answered beside others is not what it is answered alone.
        if job.rows_per_call() > 1 {
            parameters.push(("rows_per_call".to_owned(), job.rows_per_call().to_string()));
        }
        Self {
            identity: unnamed(profile),
            parameters,
            profile: profile.name.clone(),
            model: profile.model.clone(),
            host: host(profile),
        }
    }

    /// Asks the server once for the name of its model, unless the profile says who answers.
    async fn of(job: &PreparedJob, teacher: &Teacher) -> Self {
        let identity = match teacher.profile().identity() {
            Some(stated) => TeacherIdentity::Stated(stated.to_owned()),
            None => served(teacher).await,
        };
        Self { identity, ..Self::unnamed(job, teacher) }
    }

    /// Whether an answer that was found elsewhere is this teacher's.
    fn gave(&self, address: &Address) -> bool {
        address.model.as_ref().is_some_and(|model| self.identity.gave(&self.model, model))
    }

    /// The address of a question, and where else its answer may be. What the profile changes in a request, 0.1.0 could not
    /// change: its answers are others then.
    fn keys(&self, question: &Question) -> (CompletionKey, Vec<CompletionKey>) {
        let Sampling { temperature, top_p, tokens_max, stop, sample } = &question.sampling;
        let request = CompletionRequest {
            teacher: &self.identity,
            parameters: &self.parameters,
            instruction: &question.instruction,
            prompt: &question.prompt,
            sampling: Sampled {
                temperature: *temperature,
                top_p: *top_p,
                tokens_max: *tokens_max,
                stop,
                sample: *sample,
            },
        };
        let unnamed = TeacherIdentity::Unnamed { model: self.model.clone(), host: self.host.clone() };
        let unnamed = matches!(self.identity, TeacherIdentity::Served(_))
            .then(|| CompletionRequest { teacher: &unnamed, ..request }.key());
        let legacy = self.parameters.is_empty().then(|| request.legacy_key(&self.profile, &self.model));
        (request.key(), unnamed.into_iter().chain(legacy).collect())
    }
}

/// The model that the server names, or where it is.
async fn served(teacher: &Teacher) -> TeacherIdentity {
    match teacher.served_model().await {
        Some(name) => TeacherIdentity::Served(name),
        None => unnamed(teacher.profile()),
    }
}

fn unnamed(profile: &Profile) -> TeacherIdentity {
    TeacherIdentity::Unnamed { model: profile.model.clone(), host: host(profile) }
}

/// The host of a profile's address, with its port where it has one.
fn host(profile: &Profile) -> String {
    let url = profile.url.split_once("://").map_or(profile.url.as_str(), |(_, rest)| rest);
    let authority = url.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase()
}

/// What differs from the parameters that every request has.
fn changed(parameters: &Parameters) -> Vec<(String, String)> {
    let Parameters {
        // Another name for the same limit.
        tokens_parameter: _,
        send_temperature,
        send_top_p,
        send_stop,
        send_seed,
        thinking,
        thinking_tokens_max,
        body,
    } = parameters;
    let sent =
        [("temperature", send_temperature), ("top_p", send_top_p), ("stop", send_stop), ("seed", send_seed)];
    let mut changed: Vec<(String, String)> = sent
        .into_iter()
        .filter(|(_, sent)| !**sent)
        .map(|(name, _)| (name.to_owned(), "unsent".to_owned()))
        .collect();
    if *thinking {
        changed.push(("thinking".to_owned(), "true".to_owned()));
    }
    if *thinking_tokens_max > 0 {
        changed.push(("thinking_tokens_max".to_owned(), thinking_tokens_max.to_string()));
    }
    let mut keys: Vec<(String, String)> =
        body.iter().map(|(key, value)| (format!("body.{key}"), value.to_string())).collect();
    keys.sort();
    changed.extend(keys);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use teacher::Provider;

    #[test]
    fn the_host_of_an_address_has_its_port_and_no_secret() {
        for (url, expected) in [
            ("http://localhost:8080/v1", "localhost:8080"),
            ("https://api.Example.com/v1?version=2", "api.example.com"),
            ("https://user:secret@host", "host"),
            ("http://[::1]:8080/v1", "[::1]:8080"),
            ("host:1/v1", "host:1"),
            ("", ""),
        ] {
            assert_eq!(host(&Profile::new("p", Provider::OpenAiChat, url, "m")), expected, "{url}");
        }
    }

    #[test]
    fn usual_parameters_change_nothing() {
        assert_eq!(changed(&Parameters::default()), []);
        let body = serde_json::json!({"b": {"x": 1}, "a": true});
        let parameters = Parameters {
            send_temperature: false,
            send_seed: false,
            thinking: true,
            thinking_tokens_max: 100,
            body: body.as_object().unwrap().clone(),
            ..Parameters::default()
        };
        let expected = [
            ("temperature", "unsent"),
            ("seed", "unsent"),
            ("thinking", "true"),
            ("thinking_tokens_max", "100"),
            ("body.a", "true"),
            ("body.b", "{\"x\":1}"),
        ];
        assert_eq!(changed(&parameters), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
