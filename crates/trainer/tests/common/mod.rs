//! What the tests share: rows, specifications and small students.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod plain;

use ::student::Tokenizer;
use domain::example::Row;
use domain::objective::{AcceptedRationale, Objective, TrainingExample};
use domain::spec::{Draft, JudgingDraft, Precision, Spec, StudentDraft, TeacherDraft, TrainingDraft};
use domain::{Example, Task};
use std::sync::{Mutex, MutexGuard, PoisonError};
use t5::{Compute, ForwardOptions, Model, Weights};
use tch::{Device, Tensor};
use trainer::data::{TokenizedExample, encode};
use trainer::optimizer::AdamW;
use trainer::step::{Losses, optimise, pass};

/// The library's generator is one for the whole process: tests that draw from it take turns. One thread each: these
/// students are so small that threads would only wait for each other.
pub fn chance() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    tch::set_num_threads(1);
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A specification from scratch, in float32 and without dropout, with `change` made to its training.
pub fn spec(task: &str, objective: Objective, change: impl FnOnce(&mut TrainingDraft)) -> Spec {
    let mut training = TrainingDraft {
        objective: Some(objective),
        precision: Some(Precision::Float32),
        dropout: Some(0.0),
        batch_examples: Some(8),
        input_tokens_max: Some(64),
        target_tokens_max: Some(64),
        ..TrainingDraft::default()
    };
    change(&mut training);
    let draft = Draft {
        name: "test".to_owned(),
        task: Task::built_in(task).unwrap(),
        teacher: TeacherDraft::default(),
        judging: JudgingDraft::default(),
        student: StudentDraft::default(),
        training,
    };
    draft.resolve().unwrap()
}

pub fn example(index: u64, input: &str, label: &str, rationale: Option<(&str, f64)>) -> TrainingExample {
    TrainingExample {
        row: Row {
            index,
            example: Example { input: input.to_owned(), label: Some(label.to_owned()), ..Example::default() },
        },
        target: Some(label.to_owned()),
        rationales: rationale
            .into_iter()
            .map(|(text, weight)| AcceptedRationale {
                sample: 0,
                text: text.to_owned(),
                label: label.to_owned(),
                weight,
            })
            .collect(),
    }
}

/// Eight word problems, some of them with a rationale.
pub fn problems() -> Vec<TrainingExample> {
    let names = ["Ada", "Bo", "Cem", "Dia", "Eli", "Fay", "Gus", "Hana"];
    (0_u64..)
        .zip(names)
        .map(|(index, name)| {
            let (first, second) = (index + 2, 9 - index);
            let input = format!("{name} has {first} pears and buys {second} more. How many are there?");
            let rationale = format!("{name} begins with {first} and adds {second}.");
            let weight = if index % 3 == 0 { 0.5 } else { 1.0 };
            let rationale = (index % 4 != 3).then_some((rationale.as_str(), weight));
            example(index, &input, &format!("( {first} + {second} )"), rationale)
        })
        .collect()
}

/// A tokenizer trained on everything that the rows say.
pub fn tokenizer(spec: &Spec, examples: &[TrainingExample]) -> Tokenizer {
    let corpus = examples.iter().flat_map(|example| {
        let texts = spec.training.objective.compose(&spec.task, example);
        texts.labels.into_iter().chain(texts.rationales).flat_map(|text| [text.source, text.target])
    });
    Tokenizer::train(corpus, 200).unwrap()
}

/// A tiny student over a tokenizer, its weights ready to learn.
pub fn student(tokenizer: &Tokenizer, seed: i64) -> Model {
    let mut model =
        Model::from_scratch(t5::Size::Tiny.config(tokenizer.vocabulary()), seed, Device::Cpu).unwrap();
    model.set_trainable(true);
    model
}

pub fn items(spec: &Spec, tokenizer: &Tokenizer, examples: &[TrainingExample]) -> Vec<TokenizedExample> {
    encode(spec, tokenizer, examples).unwrap()
}

/// A pass without dropout, over weights that are made anew.
pub const PLAIN: ForwardOptions = ForwardOptions { compute: Compute::Float32, dropout: 0.0 };

/// A student that is trained.
pub struct Learner {
    pub model: Model,
    pub weights: Weights,
    pub optimizer: AdamW,
}

impl Learner {
    /// In float32, from scratch.
    pub fn new(mut model: Model, weight_decay: f64) -> Self {
        let (flat, weights) = model.flatten(Compute::Float32).unwrap();
        Self { model, weights, optimizer: AdamW::new(flat, weight_decay, true) }
    }

    pub fn step(
        &mut self,
        spec: &Spec,
        items: &[&TokenizedExample],
        step: u64,
        tokens_max: &mut u32,
        dropout: f64,
    ) -> Losses {
        let mut pass = pass(&self.model, &self.weights, dropout);
        optimise(&spec.training, &mut self.optimizer, items, step, tokens_max, &mut pass).unwrap()
    }
}

/// Every gradient, by name.
pub fn gradients(model: &Model) -> Vec<(String, Tensor)> {
    model.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.grad().copy())).collect()
}

/// The largest difference between two lists of tensors under the same names.
pub fn difference(left: &[(String, Tensor)], right: &[(String, Tensor)]) -> f64 {
    assert_eq!(left.len(), right.len());
    left.iter()
        .zip(right)
        .map(|((name, left), (other, right))| {
            assert_eq!(name, other);
            let difference = (left - right).abs().max().double_value(&[]);
            assert!(!difference.is_nan(), "{name} is not a number");
            difference
        })
        .fold(0.0, f64::max)
}
