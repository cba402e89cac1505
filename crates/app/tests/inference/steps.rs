//! Rows join and leave between steps: what a row is answered does not depend on it, and a label does not wait for texts.

use crate::made::{row, rows, serve, settings, spec, tasks, write_served};
use domain::Task;
use domain::objective::Objective;
use domain::spec::Precision;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;
use student::{Ask, Device, Event, Prompt, Serving, Session, Strategy, Student};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use wire::v1;
use wire::v1::inference_service_client::InferenceServiceClient;

const FORMS: [Serving; 2] = [Serving::Reference, Serving::Int8];

/// What a row was told, all of it.
#[derive(Debug, Default, Clone, PartialEq)]
struct Told {
    text: String,
    tokens: usize,
    /// The bits of the log-probability, and of each label's probability.
    bits: Vec<u64>,
    failed: Option<String>,
    ended: bool,
}

impl Told {
    fn take(&mut self, event: Event) {
        assert!(!self.ended, "{event:?} after the end of {self:?}");
        match event {
            Event::Token(piece) => {
                self.text.push_str(&piece);
                self.tokens += 1;
                return;
            }
            Event::Done { rest, log_probability, tokens } => {
                self.text.push_str(&rest);
                assert_eq!(tokens, self.tokens);
                self.bits.push(log_probability.to_bits());
            }
            Event::Chosen(choice) => {
                self.bits.extend(choice.probabilities.iter().map(|entry| entry.probability.to_bits()));
                self.text = choice.label;
            }
            Event::Failed(error) => self.failed = Some(error.to_string()),
        }
        self.ended = true;
    }
}

/// Texts of all strategies and lengths, and labels.
fn prompts(student: &Student, task: &Task) -> Vec<Prompt> {
    let codec = student.codec();
    let readable = rows(task).into_iter().take(6);
    let mut prompts: Vec<Prompt> = Vec::new();
    for (place, row) in readable.enumerate() {
        prompts.push(codec.predict(&row).unwrap());
        prompts.push(codec.explain(&row, 1 + place as u32 * 3).unwrap());
        let strategy = Strategy::Sample { temperature: 1.5, top_k: 0, top_p: 0.9, seed: place as u64 };
        prompts.push(codec.generate(&row.input, strategy, 6).unwrap());
    }
    prompts
}

/// The answers of rows that join when `joins` says so: `joins[step]` are those before that step.
fn answered(student: &Student, joins: &[Vec<(u64, Prompt)>]) -> BTreeMap<u64, Told> {
    let (mut session, mut told) = (Session::default(), BTreeMap::<u64, Told>::new());
    let mut joins = joins.iter();
    loop {
        let joined = joins.next();
        for (key, prompt) in joined.into_iter().flatten() {
            session.join(*key, prompt.clone());
        }
        if session.is_empty() && joined.is_none() {
            return told;
        }
        let step = |predictor: &student::Predictor<'_>| {
            predictor.step(&mut session, &mut |key, event| {
                told.entry(key).or_default().take(event);
                ControlFlow::Continue(())
            })
        };
        student.with(step).unwrap();
    }
}

fn opened(task: &Task, serving: Serving) -> (tempfile::TempDir, Student) {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(task, Objective::StepByStep, Precision::Float32);
    write_served(folder.path(), &spec, &rows(task), 5, serving);
    let student = Student::open(folder.path(), Device::Cpu).unwrap();
    (folder, student)
}

#[test]
fn a_row_is_answered_alike_whenever_it_joins() {
    for (task, serving) in tasks().iter().flat_map(|task| FORMS.map(|serving| (task, serving))) {
        let (_folder, student) = opened(task, serving);
        let keyed: Vec<(u64, Prompt)> = (0..).zip(prompts(&student, task)).collect();
        let alone: BTreeMap<u64, Told> =
            keyed.iter().flat_map(|row| answered(&student, &[vec![row.clone()]])).collect();
        assert!(alone.values().all(|told| told.ended && told.failed.is_none()), "{alone:?}");
        let at = |step: &dyn Fn(usize) -> usize| {
            let mut joins = vec![Vec::new(); keyed.len() * 2];
            for (place, row) in keyed.iter().enumerate() {
                joins[step(place)].push(row.clone());
            }
            joins
        };
        for joins in [at(&|_| 0), at(&|place| place), at(&|place| place / 4 * 3), at(&|place| place * 7 % 11)]
        {
            let mut found = answered(&student, &joins);
            let mut expected = alone.clone();
            if serving == Serving::Reference {
                // The last bits of float32 depend on the shape of a pass; those of labels do not, which go alone.
                for told in expected.values_mut().chain(found.values_mut()).filter(|told| told.tokens > 0) {
                    told.bits.clear();
                }
            }
            assert_eq!(found, expected, "{} {serving:?}", task.name);
        }
    }
}

#[test]
fn a_row_that_cannot_be_read_fails_alone_and_one_that_leaves_is_not_asked_again() {
    let task = Task::built_in("generate").unwrap();
    let (_folder, student) = opened(&task, Serving::Int8);
    let ask = || Ask::Text { strategy: Strategy::Greedy, tokens_max: 5 };
    let good = student.codec().generate("granite", Strategy::Greedy, 5).unwrap();
    let bad = Prompt { ids: vec![3, 1 << 40, 1], ask: ask() };
    let unknown = Prompt { ids: vec![3, 9_999, 1], ask: ask() };
    let rows = vec![(0, good.clone()), (1, bad), (2, unknown), (3, good.clone())];
    let told = answered(&student, &[rows]);
    assert!(told[&1].failed.as_ref().is_some_and(|why| why.contains("none of a vocabulary")), "{told:?}");
    assert!(told[&2].failed.as_ref().is_some_and(|why| why.contains("outside the vocabulary")), "{told:?}");
    assert_eq!(told[&0], answered(&student, &[vec![(0, good.clone())]])[&0]);
    assert_eq!(told[&0], told[&3]);

    let (mut session, mut asked) = (Session::default(), 0);
    session.join(0, good.clone());
    session.join(1, good);
    for _ in 0..9 {
        student
            .with(|predictor| {
                predictor.step(&mut session, &mut |key, _| {
                    asked += usize::from(key == 0);
                    if key == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
            })
            .unwrap();
    }
    assert_eq!((asked, session.rows()), (1, 0));
}

#[test]
fn the_packed_form_is_loaded_where_it_is_whole_and_made_again_where_it_is_not() {
    let task = Task::built_in("classify").unwrap();
    let (folder, student) = opened(&task, Serving::Int8);
    let all = |student: &Student| {
        answered(student, &[(0..).zip(prompts(student, &task)).collect::<Vec<(u64, Prompt)>>()])
    };
    let expected = all(&student);
    let (path, weights) = (folder.path().join("model.t5packed"), folder.path().join("model.safetensors"));
    let whole = std::fs::read(&path).unwrap();
    let open = || Student::open(folder.path(), Device::Cpu);
    for damaged in [&whole[..whole.len() / 2], &[0; 64], &[]] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(all(&open().unwrap()), expected);
    }
    // One of other precisions is not this student's.
    let model = t5::Model::load(folder.path(), Device::Cpu).unwrap();
    Serving::Int8Wide.write_packed(&model, folder.path()).unwrap();
    assert_eq!(all(&open().unwrap()), expected);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(all(&open().unwrap()), expected);
    // Where it is whole, the weights are not read.
    std::fs::write(&path, &whole).unwrap();
    let mut bytes = std::fs::read(&weights).unwrap();
    let tail = bytes.len() - 1_000;
    bytes[tail..].fill(0x7f);
    std::fs::write(&weights, bytes).unwrap();
    assert_eq!(all(&open().unwrap()), expected);
}

/// Weights of chance write the likeliest token on and on.
const LONG: u32 = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_label_does_not_wait_for_the_texts_before_it() {
    let (folder, end) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let task = Task::built_in("classify").unwrap();
    let spec = spec(&task, Objective::StepByStep, Precision::Float32);
    write_served(folder.path(), &spec, &[row(&task, 0), row(&task, 5)], 3, Serving::Int8);
    let channel = serve("student", folder.path(), settings(), &end).await;
    let mut client = InferenceServiceClient::new(channel.clone());
    let mut texts = Vec::new();
    for _ in 0..8 {
        let request = v1::GenerateRequest {
            input: "granite has stones".to_owned(),
            tokens_max: LONG,
            ..Default::default()
        };
        let mut stream = client.generate(request).await.unwrap().into_inner();
        // One may be empty.
        if let Some(first) = stream.next().await {
            first.unwrap();
        }
        texts.push(tokio::spawn(async move {
            while let Some(piece) = stream.next().await {
                piece.unwrap();
            }
        }));
    }
    let request = v1::PredictRequest { example: Some(row(&task, 1).into()), ..Default::default() };
    let answer = tokio::time::timeout(Duration::from_secs(30), client.predict(request)).await;
    assert!(!answer.expect("it waits").unwrap().into_inner().label.is_empty());
    let written = texts.iter().filter(|text| text.is_finished()).count();
    assert!(written < texts.len(), "all texts were whole before the label");
    end.cancel();
}
