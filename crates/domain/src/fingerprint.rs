//! What is hashed: completion keys, request ids and the fingerprint of a dataset, each over a form of its own.
//! (The fingerprint of a ledger is [`crate::judge::Fingerprint`].)
//!
//! A form names its fields one by one and is independent of how a type is stored: a new field of a row, a task, a sampling
//! setting or a specification changes no hash that was taken before. A field that matters for a hash is added to its form
//! so that its default adds nothing. Dataset fingerprints and ledger fingerprints have the same values as in 0.1.0.
//! Completion keys have a form of their own since 0.2.0; the form of 0.1.0 stays, so that answers that were paid for are
//! found again.

use crate::example::{Answer, Example};
use crate::ids::{CompletionKey, DistillationId, RequestId};
use crate::run::RunPlan;
use crate::share::Share;
use crate::spec::{PROFILE_IMPORTED, Spec};
use crate::task::{LabelSet, Task};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Builder;

/// Which teacher answers, as far as that can be told. The name of its profile is no part of it: another model behind the
/// same profile is another teacher, and the same model behind another profile is the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TeacherIdentity {
    /// The operator says so: the `identity` of the profile.
    Stated(String),
    /// The server names its model.
    Served(String),
    /// Nobody tells models apart: the name that the profile asks for, at this host.
    Unnamed {
        /// The model that the profile asks for.
        model: String,
        /// The server's host, with its port where it has one.
        host: String,
    },
}

impl TeacherIdentity {
    /// Whether an answer can be used again as this teacher's whose address does not say who gave it: that of 0.1.0, by the
    /// names of the profile and of the model that the profile asks for (`asked`), or that of a server that did not name its
    /// model. `recorded` is the model that answered.
    ///
    /// Not where the recorded model is another one. A server that goes by the name that is asked for may record a longer
    /// one (a version of the model), and a record of that name alone is an echo of the question, which tells nothing: what
    /// was paid for is kept then. A stated identity is exact.
    pub fn gave(&self, asked: &str, recorded: &str) -> bool {
        // What a server says of its model follows the name, after a space.
        let goes_by = |served: &str, name: &str| {
            served.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        match self {
            Self::Stated(name) => recorded == name,
            Self::Served(name) => goes_by(name, recorded) || goes_by(name, asked) || recorded == asked,
            Self::Unnamed { .. } => true,
        }
    }
}

/// A question to a teacher, as far as its answer depends on it.
#[derive(Debug, Clone, Copy)]
pub struct CompletionRequest<'a> {
    /// Who answers.
    pub teacher: &'a TeacherIdentity,
    /// What the profile changes in every request to its teacher, by name; what is as usual is absent.
    pub parameters: &'a [(String, String)],
    /// What a chat model is given before the prompt.
    pub instruction: &'a str,
    /// The rendered prompt.
    pub prompt: &'a str,
    /// How the completion is sampled.
    pub sampling: Sampled<'a>,
}

/// How a completion is sampled. Hashed as JSON, in this order: the form of 0.1.0.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sampled<'a> {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus mass.
    pub top_p: f64,
    /// Most tokens of the completion.
    pub tokens_max: u32,
    /// Sequences that end it.
    pub stop: &'a [String],
    /// Which sample of the row this is.
    pub sample: u32,
}

impl CompletionRequest<'_> {
    /// The content address of the answer.
    pub fn key(&self) -> CompletionKey {
        let sampling = json(&self.sampling);
        let mut parts: Vec<&[u8]> = vec![b"completion/2"];
        match self.teacher {
            TeacherIdentity::Stated(name) | TeacherIdentity::Served(name) => {
                parts.extend([b"model".as_slice(), name.as_bytes()]);
            }
            TeacherIdentity::Unnamed { model, host } => {
                parts.extend([b"host".as_slice(), model.as_bytes(), host.as_bytes()]);
            }
        }
        parts.extend([self.instruction.as_bytes(), self.prompt.as_bytes(), &sampling]);
        for (name, value) in self.parameters {
            parts.extend([name.as_bytes(), value.as_bytes()]);
        }
        CompletionKey::of(&parts)
    }

    /// The address of the same question under 0.1.0: by the names of the profile and of the model that it asks for.
    pub fn legacy_key(&self, profile: &str, model: &str) -> CompletionKey {
        CompletionKey::of(&[
            profile.as_bytes(),
            model.as_bytes(),
            self.instruction.as_bytes(),
            self.prompt.as_bytes(),
            &json(&self.sampling),
        ])
    }
}

/// The address that follows a forgotten one: the answer under `key` stays, and the question is asked again under this.
pub fn successor(key: CompletionKey) -> CompletionKey {
    CompletionKey::of(&[b"forgotten/1", &key.0])
}

/// The request id of a job that asks again what `previous` was answered: with its specification, over its rows.
pub fn refresh_request(submission: RequestId, previous: DistillationId) -> RequestId {
    request(&[b"refresh", submission.as_uuid().as_bytes(), previous.as_uuid().as_bytes()])
}

/// The request id of a probe that a job makes over a share of its rows: made again, it is the same run.
pub fn probe_request(job: DistillationId, share: Share) -> RequestId {
    request(&[b"probe", job.as_uuid().as_bytes(), share.as_str().as_bytes()])
}

/// The content address of an answer that came with the data; `input` is what the student reads.
pub fn imported_key(input: &str, answer: &Answer) -> CompletionKey {
    CompletionKey::of(&[
        PROFILE_IMPORTED.as_bytes(),
        answer.teacher().as_bytes(),
        input.as_bytes(),
        answer.text().as_bytes(),
    ])
}

/// The fingerprint of a dataset: sha256 over its rows in order, each as one line of JSON.
#[derive(Debug, Default)]
pub struct RowsHash(Sha256);

impl RowsHash {
    /// Adds the next row.
    pub fn add(&mut self, row: &Example) {
        self.0.update(json(&RowForm::of(row)));
        self.0.update(b"\n");
    }

    /// The hash of every row so far.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The request id of an upload: the same name and rows are the same upload.
pub fn upload_request(name: &str, rows: &[u8; 32]) -> RequestId {
    request(&[b"dataset", name.as_bytes(), rows])
}

/// The request id of a submission: the same dataset and specification are the same job. A setting counts where it differs
/// from its default.
pub fn submission_request(dataset_id: &str, spec: &Spec) -> RequestId {
    let mut parts: Vec<Vec<u8>> =
        vec![b"distillation/2".to_vec(), dataset_id.into(), spec.name.as_bytes().to_vec()];
    parts.push(task_form(&spec.task));
    for (key, text) in spec.chosen() {
        parts.extend([key.into_bytes(), text.into_bytes()]);
    }
    request(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The request id of a further run: the same settings over the same job's ledger are the same run; after a failure the
/// next `attempt` is another one.
pub fn run_request(job: DistillationId, spec: &Spec, plan: &RunPlan, attempt: u32) -> RequestId {
    let (study, cell) = plan.purpose.study_and_cell();
    let mut parts = vec!["run/2".to_owned(), job.to_string(), plan.purpose.name().to_owned()];
    parts.extend([study.to_owned(), cell.to_owned()]);
    parts.extend([plan.rows.millionths().to_string(), plan.rows.seed.to_string(), attempt.to_string()]);
    for (key, text) in plan.spec(spec).chosen() {
        if !key.starts_with("teacher.") {
            parts.extend([key, text]);
        }
    }
    request(&parts.iter().map(String::as_bytes).collect::<Vec<_>>())
}

fn request(parts: &[&[u8]]) -> RequestId {
    let mut hasher = Sha256::new();
    for part in parts {
        add_part(&mut hasher, part);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&[0; 16]));
    RequestId::from_uuid(Builder::from_custom_bytes(bytes).into_uuid())
}

/// Each part is preceded by its length, so that no two lists of parts share bytes by accident.
fn add_part(hasher: &mut Sha256, part: &[u8]) {
    hasher.update((part.len() as u64).to_le_bytes());
    hasher.update(part);
}

/// The fields of a task, one after the other, each list with its length.
fn task_form(task: &Task) -> Vec<u8> {
    let mut form = Vec::new();
    let mut add = |text: &str| {
        form.extend((text.len() as u64).to_le_bytes());
        form.extend(text.as_bytes());
    };
    for text in [&task.name, &task.instruction, &task.template, &task.answer.marker] {
        add(text);
    }
    for text in [task.answer.shape.as_str(), task.metric.as_str(), &task.tokens_max.to_string()] {
        add(text);
    }
    let (kind, labels) = match &task.labels {
        LabelSet::Open => ("open", &[][..]),
        LabelSet::Closed(labels) => ("closed", labels.as_slice()),
        LabelSet::Choices => ("choices", &[][..]),
    };
    add(kind);
    for list in [labels, &task.stop] {
        add(&list.len().to_string());
        list.iter().for_each(|text| add(text));
    }
    for exemplar in &task.exemplars {
        add(&exemplar.input);
        add(&exemplar.choices.len().to_string());
        exemplar.choices.iter().for_each(|choice| add(choice));
        for side in [&exemplar.premise, &exemplar.hypothesis] {
            add(if side.is_some() { "some" } else { "none" });
            add(side.as_deref().unwrap_or_default());
        }
        add(&exemplar.rationale);
        add(&exemplar.label);
    }
    form
}

/// A row as it was stored by 0.1.0.
#[derive(Serialize)]
struct RowForm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    split: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    input: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    choices: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    premise: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypothesis: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    answers: Vec<AnswerForm<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum AnswerForm<'a> {
    Completion { teacher: &'a str, text: &'a str },
    Rationale { teacher: &'a str, text: &'a str, label: Option<&'a str> },
}

impl<'a> RowForm<'a> {
    fn of(row: &'a Example) -> Self {
        let answer = |answer: &'a Answer| match answer {
            Answer::Completion { teacher, text } => AnswerForm::Completion { teacher, text },
            Answer::Rationale { teacher, text, label } => {
                AnswerForm::Rationale { teacher, text, label: label.as_deref() }
            }
        };
        Self {
            key: row.key.as_deref(),
            split: row.split.as_str(),
            input: &row.input,
            choices: &row.choices,
            premise: row.premise.as_deref(),
            hypothesis: row.hypothesis.as_deref(),
            label: row.label.as_deref(),
            answers: row.answers.iter().map(answer).collect(),
        }
    }
}

/// A form of texts and numbers is always writable: the fallback is never taken.
fn json(form: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Draft, JudgingDraft, StudentDraft, TeacherDraft, TrainingDraft};

    /// Hashes of 0.1.0, and what they were taken of.
    #[test]
    fn keys_and_fingerprints_have_the_values_of_0_1_0() {
        let sampling = Sampled {
            temperature: 0.7,
            top_p: 1.0,
            tokens_max: 256,
            stop: &["\n\nQ:".to_owned()],
            sample: 1,
        };
        let asked = CompletionRequest {
            teacher: &TeacherIdentity::Served("small-1".to_owned()),
            parameters: &[],
            instruction: "",
            prompt: "Q: 2 + 2?\nA:",
            sampling,
        };
        assert_eq!(asked.legacy_key("local", "default").to_string(), KEY_ASKED);
        assert_eq!(asked.key().to_string(), KEY_SERVED, "recorded: a new setting must not change it");
        let answer = Answer::Completion { teacher: "palm-540b".into(), text: "4.".into() };
        assert_eq!(imported_key("2 + 2?", &answer).to_string(), KEY_IMPORTED);
        let mut rows = RowsHash::default();
        rows.add(&full_row());
        rows.add(&Example { input: "\"é\"\n".into(), ..Example::default() });
        assert_eq!(hex::encode(rows.finish()), ROWS);
    }

    const KEY_ASKED: &str = "505be4b1f0bc44e79629b7ef5957edc60edf881cce54658922511bbf81b85180";
    const KEY_SERVED: &str = "706de37ca4df0d0a489a7f1567a024f38fa6a3bc406dd702afed63c480da7e2d";
    const KEY_IMPORTED: &str = "bc36603eca942ae478a8b6a0d8d48e7639d60c90174d998efcbfd230a770b384";
    const ROWS: &str = "2726e3c5041c13a3b148e3716fffdc3d76b9eb8b2512438c3508009723042671";

    fn full_row() -> Example {
        Example {
            key: Some("k".into()),
            split: crate::Split::Test,
            input: "in".into(),
            choices: vec!["a".into(), "b".into()],
            premise: Some("p".into()),
            hypothesis: Some("h".into()),
            label: Some("l".into()),
            answers: vec![
                Answer::Completion { teacher: "t".into(), text: "c".into() },
                Answer::Rationale { teacher: "t".into(), text: "r".into(), label: None },
                Answer::Rationale { teacher: "t".into(), text: "r".into(), label: Some("x".into()) },
            ],
        }
    }

    #[test]
    fn a_key_differs_by_who_answers_and_what_is_sent() {
        let key = |teacher: TeacherIdentity, parameters: &[(&str, &str)]| {
            let sampling = Sampled { temperature: 0.0, top_p: 1.0, tokens_max: 256, stop: &[], sample: 0 };
            let parameters: Vec<(String, String)> =
                parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            CompletionRequest {
                teacher: &teacher,
                parameters: &parameters,
                instruction: "",
                prompt: "Q",
                sampling,
            }
            .key()
        };
        let served = |name: &str| TeacherIdentity::Served(name.to_owned());
        let unnamed = |host: &str| TeacherIdentity::Unnamed { model: "a".to_owned(), host: host.to_owned() };
        let plain = key(served("a"), &[]);
        assert_eq!(key(TeacherIdentity::Stated("a".to_owned()), &[]), plain, "whoever says so");
        let mut all = vec![
            plain,
            key(served("b"), &[]),
            key(unnamed("host:1"), &[]),
            key(unnamed("host:2"), &[]),
            key(served("a"), &[("thinking", "true")]),
            key(served("a"), &[("thinking", "true"), ("temperature", "unsent")]),
        ];
        all.extend([successor(all[0]), successor(successor(all[0])), successor(all[1])]);
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn answers_of_0_1_0_are_used_where_they_are_the_same_teachers() {
        let served = |name: &str| TeacherIdentity::Served(name.to_owned());
        let stated = |name: &str| TeacherIdentity::Stated(name.to_owned());
        let unnamed =
            TeacherIdentity::Unnamed { model: "default".to_owned(), host: "localhost:8080".to_owned() };
        for (identity, recorded, expected) in [
            (served("small-1"), "small-1", true),
            (served("small-2"), "small-1", false),
            (served("default"), "default-2025", true),
            (served("small-2"), "default", true),
            (served("small-1 size=9"), "small-1", true),
            (served("small-10"), "small-1", false),
            (served("default size=9"), "default-2025", true),
            (unnamed, "small-1", true),
            (stated("small-1"), "small-1", true),
            (stated("mine"), "small-1", false),
            (stated("mine"), "default", false),
        ] {
            assert_eq!(identity.gave("default", recorded), expected, "{identity:?}, {recorded}");
        }
    }

    #[test]
    fn the_parts_of_a_request_do_not_run_into_each_other() {
        assert_eq!(upload_request("a", &[0; 32]), upload_request("a", &[0; 32]));
        assert_ne!(upload_request("a", &[0; 32]), upload_request("a", &[1; 32]));
        assert_eq!(request(&[b"a", b"b"]), request(&[b"a", b"b"]));
        assert_ne!(request(&[b"a", b"b"]), request(&[b"ab", b""]));
    }

    fn draft() -> Draft {
        Draft {
            name: "job".into(),
            task: Task::built_in("choice").unwrap(),
            teacher: TeacherDraft { profile: Some("local".into()), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        }
    }

    fn submitted(change: impl FnOnce(&mut Draft)) -> RequestId {
        let mut draft = draft();
        change(&mut draft);
        submission_request("d", &draft.resolve().unwrap())
    }

    #[test]
    fn a_submission_differs_by_what_is_chosen() {
        let plain = submitted(|_| {});
        assert_eq!(plain.to_string(), SUBMISSION, "recorded: a new setting must not change it");
        let changes: [&dyn Fn(&mut Draft); 10] = [
            &|draft| draft.name = "other".into(),
            &|draft| draft.task.instruction.push('.'),
            &|draft| draft.task.exemplars.truncate(3),
            &|draft| draft.task.stop = vec!["Q".into()],
            &|draft| draft.teacher.profile = Some("elsewhere".into()),
            &|draft| {
                draft.teacher.budget = Some(crate::spec::Budget { prompts: Some(1), ..Default::default() })
            },
            &|draft| draft.judging.vote = Some(false),
            &|draft| draft.student.vocabulary = Some(500),
            &|draft| draft.training.alpha = Some(0.25),
            &|draft| draft.training.patience = Some(3),
        ];
        let mut ids: Vec<RequestId> = changes.iter().map(|change| submitted(change)).collect();
        assert_eq!(ids.remove(6), plain, "a default that is written out chooses nothing");
        ids.push(plain);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), changes.len());
    }

    #[test]
    fn a_run_differs_by_its_settings() {
        let job = draft().resolve().unwrap();
        let id = DistillationId::from_uuid(uuid::Uuid::nil());
        let plan = RunPlan::of_job(&job);
        let mut other = plan.clone();
        other.training.alpha = 0.25;
        let rows = RunPlan { rows: crate::subset::Subset::all(7), ..plan.clone() };
        let same = run_request(id, &job, &plan, 0);
        assert_eq!(run_request(id, &job, &plan.clone(), 0), same);
        for another in [
            run_request(id, &job, &plan, 1),
            run_request(id, &job, &other, 0),
            run_request(id, &job, &rows, 0),
            run_request(DistillationId::generate(), &job, &plan, 0),
        ] {
            assert_ne!(another, same);
        }
    }

    const SUBMISSION: &str = "2ce36f50-1542-829f-bb3f-d515c9e15cd4";
}
