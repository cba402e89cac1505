//! What a student says: sets of labels, rows without choices, and weights that overflow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::objective::Objective;
use domain::task::LabelSet;
use domain::{Example, Task};
use student::{Answer, Ask, Codec, Device, Limits, Predictor, Serving, StudentError, Tokenizer};
use t5::{Compute, Model};

const LIMITS: Limits = Limits { input_tokens_max: 64, target_tokens_max: 8, label_tokens_max: 8 };

fn tokenizer() -> Tokenizer {
    let texts = ["predict: red green blue stones", "a red stone and a green one", "explain: why is it blue"];
    Tokenizer::train(texts.map(str::to_owned), 120).unwrap()
}

fn task(labels: LabelSet) -> Task {
    Task { labels, ..Task::built_in("generate").unwrap() }
}

fn closed(labels: &[&str]) -> LabelSet {
    LabelSet::Closed(labels.iter().map(|label| (*label).to_owned()).collect())
}

fn codec(labels: LabelSet, objective: Objective) -> Result<Codec, StudentError> {
    Codec::new(task(labels), objective, LIMITS, tokenizer())
}

fn row(input: &str, choices: &[&str]) -> Example {
    let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
    Example { input: input.to_owned(), choices, ..Example::default() }
}

fn model(seed: i64) -> Model {
    Model::from_scratch(t5::Size::Tiny.config(tokenizer().vocabulary()), seed, Device::Cpu).unwrap()
}

fn answers(
    codec: &Codec,
    model: &Model,
    compute: Compute,
    rows: &[Example],
) -> Vec<Result<Answer, StudentError>> {
    let weights = model.weights(compute).unwrap();
    let predictor = Predictor::new(codec, model, &weights, compute);
    let rows: Vec<&Example> = rows.iter().collect();
    predictor.answers(&rows, &mut || Ok::<(), StudentError>(())).unwrap()
}

#[test]
fn a_row_without_choices_has_an_open_set() {
    let codec = codec(LabelSet::Choices, Objective::StepByStep).unwrap();
    assert!(matches!(codec.predict(&row("red?", &[])).unwrap().ask, Ask::Text { tokens_max: 8, .. }));
    let Ask::Choice(candidates) = codec.predict(&row("red?", &["red", "blue"])).unwrap().ask else {
        panic!()
    };
    assert_eq!(
        candidates.entries().iter().map(|candidate| candidate.label.as_str()).collect::<Vec<_>>(),
        ["red", "blue"]
    );
    let rows = [row("red?", &[]), row("red?", &["red", "blue"])];
    let said = answers(&codec, &model(1), Compute::Float32, &rows);
    let [written, chosen] = said.as_slice() else { panic!() };
    let (written, chosen) = (written.as_ref().unwrap(), chosen.as_ref().unwrap());
    assert!(!written.text.is_empty() && written.probability().is_none());
    assert!(["red", "blue"].contains(&chosen.label.as_str()) && chosen.probability().unwrap() >= 0.5);
}

#[test]
fn labels_that_are_the_same_to_the_tokenizer_are_refused() {
    let refused = |labels: &[&str], needles: &[&str]| {
        let said = codec(closed(labels), Objective::Standard).unwrap_err().to_string();
        for needle in needles {
            assert!(said.contains(needle), "{said}");
        }
    };
    refused(&["red", "漢", "字"], &["cannot tell `漢` and `字` apart", "<unk>"]);
    refused(&["red", "ｒｅｄ", "blue"], &["cannot tell `red` and `ｒｅｄ` apart", "rename one"]);
    codec(closed(&["red", "blue"]), Objective::Standard).unwrap();
    // One label of unknown characters is different from the others.
    codec(closed(&["red", "漢"]), Objective::Standard).unwrap();
    // An objective that writes rationales with its labels does not choose from the set.
    codec(closed(&["漢", "字"]), Objective::RationaleThenLabel).unwrap();
    let choices = codec(LabelSet::Choices, Objective::Standard).unwrap();
    let rows = [row("red?", &["漢", "字"]), row("red?", &["red", "blue"]), row("red?", &["red", "red"])];
    let said = answers(&choices, &model(1), Compute::Float32, &rows);
    assert!(matches!(said[0], Err(StudentError::Labels(_))) && said[1].is_ok() && said[2].is_ok());
    assert!(!choices.can_write("漢").unwrap() && choices.can_write("red").unwrap());
}

#[test]
fn a_row_that_cannot_be_asked_fails_alone() {
    let codec = codec(LabelSet::Open, Objective::StepByStep).unwrap();
    let long = "stone ".repeat(80);
    let said =
        answers(&codec, &model(1), Compute::Float32, &[row("red?", &[]), row(&long, &[]), row("blue?", &[])]);
    assert!(said[0].is_ok() && said[2].is_ok());
    let error = said[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("tokens, and the model reads at most 64: shorten it"), "{error}");
}

/// A model whose head overflows.
fn overflowing() -> Model {
    let mut model = model(1);
    let mut weights = model.snapshot();
    for (_, tensor) in weights.iter_mut().filter(|(name, _)| name == "lm_head.weight") {
        *tensor = &*tensor * 3e38;
    }
    model.copy_from(&weights).unwrap();
    model
}

#[test]
fn logits_that_are_not_finite_are_no_answer() {
    for compute in [Compute::Float32, Compute::BFloat16] {
        for labels in [closed(&["red", "blue"]), LabelSet::Open] {
            let codec = codec(labels, Objective::Standard).unwrap();
            let said = answers(&codec, &overflowing(), compute, &[row("red?", &[])]);
            assert!(matches!(said[0], Err(StudentError::NotFinite(_))), "{compute:?}: {said:?}");
            let finite = answers(&codec, &model(1), compute, &[row("red?", &[])]);
            let finite = finite[0].as_ref().unwrap();
            assert!(finite.log_probability.is_finite() && finite.log_probability <= 0.0, "{finite:?}");
        }
    }
}

/// Probabilities do not depend on the rows of the same call.
#[test]
fn company_changes_no_bit_of_a_probability() {
    let codec = codec(closed(&["red", "green", "blue"]), Objective::Standard).unwrap();
    let rows: Vec<Example> = (1..12).map(|count| row(&"red stone ".repeat(count % 5 + 1), &[])).collect();
    for compute in [Compute::Float32, Compute::BFloat16] {
        let model = model(7);
        let together = answers(&codec, &model, compute, &rows);
        for (row, together) in rows.iter().zip(together) {
            let alone = answers(&codec, &model, compute, std::slice::from_ref(row)).remove(0).unwrap();
            assert_eq!(alone.probabilities, together.unwrap().probabilities);
        }
    }
}

fn serving(codec: &Codec, model: &Model, rows: &[Example]) -> Serving {
    let rows: Vec<&Example> = rows.iter().collect();
    Serving::measured(codec, model, Compute::Float32, &rows, &mut || Ok::<(), StudentError>(())).unwrap()
}

#[test]
fn a_student_is_served_in_a_form_that_answers_as_its_reference_does() {
    let words = ["red", "green", "blue", "a stone", "why", "one and one"];
    let rows: Vec<Example> =
        (0..40).map(|row| self::row(&format!("{} {}", words[row % 6], words[row / 7]), &[])).collect();
    let codec = codec(closed(&["red", "green"]), Objective::StepByStep).unwrap();
    assert_eq!(serving(&codec, &model(1), &[]), Serving::Reference, "nothing was compared");
    let form = serving(&codec, &model(1), &rows);
    assert_ne!(form, Serving::Reference);
    assert_eq!(Serving::of(form.name()), form);
    assert_eq!(Serving::of("of a later version"), Serving::Reference);
    // One activation of every feed-forward layer is far from the others, and nothing comes of it: 8 bits beside it leave nothing of
    // those that count, 16 bits enough.
    let mut outlying = model(1);
    let mut weights = outlying.snapshot();
    for (name, weight) in &mut weights {
        if name.ends_with("wi_1.weight") {
            let _ = weight.narrow(0, 0, 1).g_mul_scalar_(1e3);
        } else if name.ends_with("wo.weight") {
            let _ = weight.g_mul_scalar_(4.5);
            let _ = weight.narrow(1, 0, 1).zero_();
        }
    }
    outlying.copy_from(&weights).unwrap();
    let labels = closed(&["red", "green", "blue", "stone", "one", "why", "a", "is"]);
    let many = self::codec(labels, Objective::Standard).unwrap();
    assert_eq!(serving(&many, &outlying, &rows), Serving::Int8WideOutput);
    // Texts of weights of chance hang on the last bits: they are not packed at all.
    let texts = self::codec(LabelSet::Open, Objective::Standard).unwrap();
    assert_eq!(serving(&texts, &outlying, &rows), Serving::Reference);
}

#[test]
fn weights_that_overflow_are_not_packed() {
    let codec = codec(closed(&["red", "green"]), Objective::Standard).unwrap();
    assert_eq!(serving(&codec, &overflowing(), &[row("red", &[])]), Serving::Reference);
}
