//! Students made for these tests, with weights of chance, and the services over them.

use app::transport;
use checkpoints::{Provenance, StartedFrom};
use domain::objective::{self, Objective};
use domain::spec::{Draft, Precision, Spec, StudentDraft, TeacherDraft, TrainingDraft};
use domain::task::LabelSet;
use domain::{Example, Task};
use inference::{Inference, Settings};
use std::path::Path;
use student::{Device, Serving, Tokenizer};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::Channel;
use wire::open_inference as v2;
use wire::open_inference::model_infer_request::InferInputTensor;

/// Tokens of an input, and of a text, at most. The last row of every task is longer.
pub(crate) const INPUT_TOKENS: u32 = 128;
pub(crate) const TARGET_TOKENS: u32 = 14;
/// Tokens of a label at most, where it is written alone.
pub(crate) const LABEL_TOKENS: u32 = 9;

/// Every kind of task: the built-in ones, and one whose rows may name choices and do not.
pub(crate) fn tasks() -> Vec<Task> {
    let built_in = domain::task::BUILT_IN.iter().map(|name| Task::built_in(name).unwrap());
    let mut open = Task::built_in("generate").unwrap();
    open.name = "open".to_owned();
    open.labels = LabelSet::Choices;
    built_in.chain([open]).collect()
}

pub(crate) fn row(task: &Task, place: usize) -> Example {
    let words = ["granite", "pellar", "stovish", "martem", "linora", "vekkin", "toral"];
    let text = |from: usize, count: usize| -> String {
        (from..from + count).map(|word| words[word * 3 % 7]).collect::<Vec<_>>().join(" ")
    };
    let long = if place == 6 { 400 } else { 1 + place * 2 };
    let mut row = Example {
        input: format!("{} has {place} stones?", text(place, long)),
        label: Some(words[place].to_owned()),
        ..Example::default()
    };
    match task.name.as_str() {
        "nli" | "esnli" => {
            row.input.clear();
            row.premise = Some(text(place, long));
            row.hypothesis = Some(text(place + 1, 3));
        }
        "choice" | "classify" => {
            row.choices = words[place % 3..].iter().take(4).map(|word| (*word).to_owned()).collect()
        }
        _ => {}
    }
    if let LabelSet::Closed(labels) = &task.labels {
        row.label = Some(labels[place % labels.len()].clone());
    }
    row
}

pub(crate) fn rows(task: &Task) -> Vec<Example> {
    (0..7).map(|place| row(task, place)).collect()
}

pub(crate) fn spec(task: &Task, objective: Objective, precision: Precision) -> Spec {
    let draft = Draft {
        name: "student".to_owned(),
        task: task.clone(),
        teacher: TeacherDraft::default(),
        judging: Default::default(),
        student: StudentDraft::default(),
        training: TrainingDraft {
            objective: Some(objective),
            precision: Some(precision),
            input_tokens_max: Some(INPUT_TOKENS),
            target_tokens_max: Some(TARGET_TOKENS),
            ..TrainingDraft::default()
        },
    };
    draft.resolve().unwrap()
}

/// Writes a student with weights of chance.
pub(crate) fn write(folder: &Path, spec: &Spec, rows: &[Example], seed: i64) {
    write_served(folder, spec, rows, seed, Serving::Reference);
}

/// The same, in the form in which it is served.
pub(crate) fn write_served(folder: &Path, spec: &Spec, rows: &[Example], seed: i64, serving: Serving) {
    let mut texts: Vec<String> = rows.iter().map(|row| objective::predict_source(&spec.task, row)).collect();
    texts.extend(rows.iter().filter_map(|row| row.label.clone()));
    if let LabelSet::Closed(labels) = &spec.task.labels {
        texts.extend(labels.iter().cloned());
    }
    let tokenizer = Tokenizer::train(texts, 260).unwrap();
    let config = t5::Size::Tiny.config(tokenizer.vocabulary());
    let model = t5::Model::from_scratch(config, seed, Device::Cpu).unwrap();
    model.save(folder, u64::MAX).unwrap();
    serving.write_packed(&model, folder).unwrap();
    tokenizer.save(folder).unwrap();
    let provenance = Provenance {
        code_version: "test".to_owned(),
        spec: spec.clone(),
        dataset_fingerprint: String::new(),
        ledger_fingerprint: String::new(),
        run: checkpoints::RunOrigin::default(),
        started_from: StartedFrom::Scratch,
        steps: 0,
        selected_step: 0,
        serving: serving.name().to_owned(),
        precision: spec.training.precision.to_string(),
        threads: 1,
        parameters: 0,
        label_tokens_max: spec.training.objective.writes_label_alone().then_some(LABEL_TOKENS),
        validation: None,
        test: None,
    };
    provenance.write(folder).unwrap();
}

/// Nothing is answered out of the cache: what is compared is computed.
pub(crate) fn settings() -> Settings {
    Settings { cache_bytes_max: 0, ..Settings::default() }
}

/// The services over one folder.
pub(crate) async fn serve(name: &str, folder: &Path, settings: Settings, end: &CancellationToken) -> Channel {
    let inference = Inference::start(Settings { use_cuda: false, threads: 1, ..settings }).unwrap();
    inference.open_folder(name, folder).await.unwrap();
    let routes = Routes::new(inference.service()).add_service(inference.open_inference());
    transport::in_memory(routes, end.clone()).await.unwrap()
}

pub(crate) fn tensor(name: &str, rows: &[&Example]) -> InferInputTensor {
    let texts: Vec<&str> = rows
        .iter()
        .flat_map(|row| match name {
            "input" => vec![row.input.as_str()],
            "premise" => vec![row.premise.as_deref().unwrap()],
            "hypothesis" => vec![row.hypothesis.as_deref().unwrap()],
            _ => row.choices.iter().map(String::as_str).collect(),
        })
        .collect();
    let count = rows.len() as i64;
    let shape = if name == "choices" { vec![count, texts.len() as i64 / count] } else { vec![count] };
    InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape,
        contents: Some(v2::InferTensorContents {
            bytes_contents: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
