//! Asking a student: closed sets, company, and students that have learned their rows by heart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too, and tests have their own environment"
)]

mod common;

use ::student::{Codec, Limits, Predictor, Tokenizer};
use common::{Learner, chance, example, items, problems, spec, student, tokenizer};
use domain::label;
use domain::objective::Objective;
use domain::objective::TrainingExample;
use domain::spec::{Spec, TrainingDraft};
use t5::{Batch, Compute, Model};
use trainer::TrainError;
use trainer::data::TokenizedExample;

fn answers(spec: &Spec, tokenizer: &Tokenizer, model: &Model, examples: &[TrainingExample]) -> Vec<String> {
    asked(spec, tokenizer, model, examples, &mut || Ok(())).unwrap()
}

/// The labels of the rows; `pause` is called between passes.
fn asked(
    spec: &Spec,
    tokenizer: &Tokenizer,
    model: &Model,
    examples: &[TrainingExample],
    pause: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<Vec<String>, TrainError> {
    let limits = Limits::of(&spec.training, None);
    let codec = Codec::new(spec.task.clone(), spec.training.objective, limits, tokenizer.clone())?;
    let weights = model.weights(Compute::Float32)?;
    let rows: Vec<&domain::Example> = examples.iter().map(|example| &example.row.example).collect();
    let answers = Predictor::new(&codec, model, &weights, Compute::Float32).answers(&rows, pause)?;
    answers.into_iter().map(|answer| Ok(answer?.label)).collect()
}

/// A higher learning rate, and room for every row: one that is too long is not answered.
fn quick_and_long(training: &mut TrainingDraft) {
    training.learning_rate = Some(1e-2);
    training.input_tokens_max = Some(128);
}

const LABELS: [&str; 3] = ["entailment", "neutral", "contradiction"];

/// More pairs than one pass takes, of many lengths.
fn pairs() -> Vec<TrainingExample> {
    let words = ["granite", "pellar", "stovish", "martem", "linora"];
    (0..70)
        .map(|index| {
            let mut row = example(index, "", LABELS[(index % 3) as usize], None);
            let premise: Vec<&str> =
                (0..=index % 13).map(|place| words[((index + place * 3) % 5) as usize]).collect();
            row.row.example.premise = Some(premise.join(" "));
            row.row.example.hypothesis = Some(format!("{} {index}", words[(index % 5) as usize]));
            row
        })
        .collect()
}

/// A student that has seen a little of the rows: it answers this and that, not always the same.
fn taught(spec: &Spec, tokenizer: &Tokenizer, examples: &[TrainingExample], steps: u64) -> Model {
    let mut learner = Learner::new(student(tokenizer, 5), 0.0);
    let items = items(spec, tokenizer, examples);
    for step in 0..steps {
        let batch: Vec<&TokenizedExample> = items.iter().skip(step as usize * 8 % 64).take(8).collect();
        learner.step(spec, &batch, step, &mut 100_000, 0.0);
    }
    learner.model
}

#[test]
fn of_a_closed_set_the_likeliest_is_chosen() {
    let _turn = chance();
    let spec = spec("nli", Objective::StepByStep, quick_and_long);
    let examples = pairs();
    let tokenizer = tokenizer(&spec, &examples);
    let model = taught(&spec, &tokenizer, &examples, 20);
    let weights = model.weights(Compute::Float32).unwrap();
    let found = answers(&spec, &tokenizer, &model, &examples);
    let mut seen = std::collections::BTreeSet::new();
    for (example, answer) in examples.iter().zip(&found).step_by(6) {
        let input = format!("predict: {}", spec.task.student_input(&example.row.example));
        let ids = tokenizer.encode(&input).unwrap();
        let batch = Batch::padded(&[(&ids, &[])]);
        let encoded = model.encode(&weights, &batch.input_ids, &batch.input_mask).unwrap();
        let score = |label: &str| {
            t5::score(&model, &weights, &encoded, 0, &[tokenizer.label(label).unwrap()]).unwrap()[0]
        };
        let best = LABELS.into_iter().max_by(|left, right| score(left).total_cmp(&score(right))).unwrap();
        assert_eq!(answer, best);
        seen.insert(answer.clone());
    }
    assert!(seen.len() > 1, "every row has the same answer: {seen:?}");
}

#[test]
fn company_changes_no_answer() {
    let _turn = chance();
    // Closed sets, and texts that are written freely.
    for (task, objective) in [("nli", Objective::StepByStep), ("generate", Objective::Standard)] {
        let spec = spec(task, objective, quick_and_long);
        let rows = pairs();
        let tokenizer = tokenizer(&spec, &rows);
        let model = taught(&spec, &tokenizer, &rows, 20);
        let together = answers(&spec, &tokenizer, &model, &rows);
        assert_eq!(together.len(), rows.len());
        for (row, answer) in rows.iter().zip(&together).step_by(10) {
            let alone = answers(&spec, &tokenizer, &model, std::slice::from_ref(row));
            assert_eq!(&alone, std::slice::from_ref(answer), "{task}");
        }
        let mut turned = rows.clone();
        turned.reverse();
        let mut back = answers(&spec, &tokenizer, &model, &turned);
        back.reverse();
        assert_eq!(back, together, "{task}");
        assert!(
            together.iter().any(|answer| answer != &together[0]),
            "{task}: all answers are {}",
            together[0]
        );
    }
}

#[test]
fn a_pause_ends_the_asking() {
    let _turn = chance();
    let spec = spec("nli", Objective::Standard, |_| {});
    let rows = pairs();
    let tokenizer = tokenizer(&spec, &rows);
    let model = student(&tokenizer, 6);
    let mut passes = 0;
    let ended = asked(&spec, &tokenizer, &model, &rows, &mut || {
        passes += 1;
        Err(TrainError::Cancelled)
    });
    assert!(matches!(ended, Err(TrainError::Cancelled)));
    assert_eq!(passes, 1);
    assert_eq!(asked(&spec, &tokenizer, &model, &[], &mut || Err(TrainError::Cancelled)).unwrap(), [""; 0]);
}

/// From scratch to every answer right, under each objective.
#[test]
fn eight_rows_are_learned_by_heart() {
    const STEPS_MAX: u64 = 400;
    let _turn = chance();
    for objective in Objective::ALL {
        let spec = spec("equation", *objective, |training| {
            training.steps = Some(STEPS_MAX as u32);
            training.learning_rate = Some(3e-3);
        });
        let rows = problems();
        let tokenizer = tokenizer(&spec, &rows);
        let mut learner = Learner::new(student(&tokenizer, 2), spec.training.weight_decay);
        let items = items(&spec, &tokenizer, &rows);
        let batch: Vec<&TokenizedExample> = items.iter().collect();
        let right = |model: &Model| {
            let answers = answers(&spec, &tokenizer, model, &rows);
            rows.iter()
                .zip(answers)
                .filter(|(row, answer)| label::same(spec.task.metric, answer, row.target.as_deref().unwrap()))
                .count()
        };
        assert!(right(&learner.model) < rows.len(), "nothing was to be learned");
        let mut step = 0;
        let mut loss = 0.0;
        while step < STEPS_MAX && (step % 20 != 0 || right(&learner.model) < rows.len()) {
            loss = learner.step(&spec, &batch, step, &mut 100_000, 0.0).label.unwrap();
            step += 1;
        }
        let right = right(&learner.model);
        println!("{objective}: {right} of {} after {step} steps, label loss {loss:.3}", rows.len());
        assert_eq!(right, rows.len(), "{objective}");
    }
}
