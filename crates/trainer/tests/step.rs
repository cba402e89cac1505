//! One optimiser step: parts, losses, numbers that are none, memory that runs out, and steps that resume after a kill.
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

use ::student::Tokenizer;
use common::plain::PlainAdamW;
use common::{Learner, PLAIN, chance, difference, gradients, items, problems, spec, student, tokenizer};
use domain::objective::Objective;
use domain::spec::Spec;
use kernels::Draw;
use std::path::Path;
use std::process::{Command, Stdio};
use t5::{Batch, Compute, Config, FeedForwardKind, ForwardOptions, IGNORED, Model, Size, Weights};
use tch::{Kind, Tensor};
use trainer::TrainError;
use trainer::batches::{WeightedRow, epoch, padded};
use trainer::data::TokenizedExample;
use trainer::optimizer::AdamW;
use trainer::out_of_memory::catch_out_of_memory;
use trainer::schedule::learning_rate;
use trainer::step::{Losses, optimise, pass};

struct Bench {
    spec: Spec,
    tokenizer: Tokenizer,
    items: Vec<TokenizedExample>,
}

impl Bench {
    fn new(objective: Objective) -> Self {
        let spec = spec("equation", objective, |training| training.alpha = Some(0.3));
        let tokenizer = tokenizer(&spec, &problems());
        let items = items(&spec, &tokenizer, &problems());
        Self { spec, tokenizer, items }
    }

    fn batch(&self) -> Vec<&TokenizedExample> {
        self.items.iter().collect()
    }

    /// One step of a fresh student; its gradients stay.
    fn step(&self, tokens_max: u32) -> (Model, Losses) {
        let mut learner = Learner::new(student(&self.tokenizer, 1), 0.0);
        let mut tokens_max = tokens_max;
        let losses = learner.step(&self.spec, &self.batch(), 0, &mut tokens_max, 0.0);
        (learner.model, losses)
    }
}

#[test]
fn parts_give_the_gradients_and_losses_of_the_whole() {
    let _turn = chance();
    for objective in Objective::ALL {
        let bench = Bench::new(*objective);
        let (whole, losses) = bench.step(1_000_000);
        for tokens_max in [600, 200, 1] {
            let (parted, others) = bench.step(tokens_max);
            let apart = difference(&gradients(&whole), &gradients(&parted));
            println!("{objective} in parts of {tokens_max}: gradients {apart:.1e} apart");
            assert!(apart < 1e-6, "{objective}: {apart:e}");
            assert!((losses.label.unwrap() - others.label.unwrap()).abs() < 1e-6, "{losses:?} {others:?}");
            assert!((losses.gradient_norm - others.gradient_norm).abs() < 1e-5);
            assert_eq!(losses.rationale.is_some(), *objective == Objective::StepByStep);
            if let (Some(one), Some(other)) = (losses.rationale, others.rationale) {
                assert!((one - other).abs() < 1e-6);
            }
        }
    }
}

/// Version 1.0 and version 1.1 of the model.
fn versions(tokenizer: &Tokenizer) -> [Config; 2] {
    let config = Size::Tiny.config(tokenizer.vocabulary());
    let gated = config.clone();
    let old = Config {
        feed_forward: FeedForwardKind::RELU,
        own_head: false,
        scale_decoder_outputs: true,
        ..config
    };
    [old, gated]
}

#[test]
fn steps_are_those_of_the_plain_version() {
    const STEPS: u64 = 3;
    let _turn = chance();
    let bench = Bench::new(Objective::StepByStep);
    for config in versions(&bench.tokenizer) {
        let model = || Model::from_scratch(config.clone(), 1, tch::Device::Cpu).unwrap();
        let mut learner = Learner::new(model(), 0.01);
        let mut plain = model();
        plain.set_trainable(true);
        let mut optimizer = PlainAdamW::new(&plain, 0.01, true);
        for step in 0..STEPS {
            // In several parts, whose gradients are summed.
            learner.step(&bench.spec, &bench.batch(), step, &mut 300, 0.0);
            optimizer.zero_gradients();
            let label = by_the_book(&plain, &rows(&bench, |item| &item.labels), &PLAIN);
            let rationale = by_the_book(&plain, &rows(&bench, |item| &item.rationales), &PLAIN);
            (label * 0.3 + rationale * 0.7).backward();
            let scale = (bench.spec.training.clip_norm / (optimizer.gradient_norm() + 1e-6)).min(1.0);
            optimizer.step(learning_rate(&bench.spec.training, step), scale);
            let apart = difference(&learner.model.snapshot(), &plain.snapshot());
            println!("gated {}, after step {step}: weights {apart:.1e} apart", config.feed_forward.gated);
            assert!(apart < 1e-6, "after step {step}: {apart:e}");
        }
    }
}

/// In bfloat16 two computations differ; neither may lie further from float32 than the other.
#[test]
fn a_bfloat16_pass_is_as_near_to_float32_as_the_plain_one() {
    let _turn = chance();
    let bench = Bench::new(Objective::StepByStep);
    for config in versions(&bench.tokenizer) {
        let model = || Model::from_scratch(config.clone(), 1, tch::Device::Cpu).unwrap();
        let plain = |compute: Compute| {
            let mut model = model();
            model.set_trainable(true);
            let options = ForwardOptions { compute, ..PLAIN };
            let label = by_the_book(&model, &rows(&bench, |item| &item.labels), &options);
            let rationale = by_the_book(&model, &rows(&bench, |item| &item.rationales), &options);
            (label * 0.3 + rationale * 0.7).backward();
            gradients(&model)
        };
        let (exact, rounded) = (plain(Compute::Float32), plain(Compute::BFloat16));
        let mut fast = model();
        let (flat, weights) = fast.flatten(Compute::BFloat16).unwrap();
        let mut optimizer = AdamW::new(flat, 0.01, true);
        let mut pass = pass(&fast, &weights, 0.0);
        optimise(&bench.spec.training, &mut optimizer, &bench.batch(), 0, &mut 300, &mut pass).unwrap();
        let distance = |found: &[(String, Tensor)]| {
            let squares = found.iter().zip(&exact).map(|((_, found), (_, exact))| (found - exact).square());
            squares.map(|square| square.sum(Kind::Double).double_value(&[])).sum::<f64>().sqrt()
        };
        let (fast, plain) = (distance(&gradients(&fast)), distance(&rounded));
        println!("gated {}: {fast:.1e} from float32, the plain pass {plain:.1e}", config.feed_forward.gated);
        assert!(fast < 1.2 * plain, "{fast:e} and {plain:e}");
    }
}

fn rows<'a>(
    bench: &'a Bench,
    of: impl Fn(&'a TokenizedExample) -> &'a [trainer::data::TokenizedRow],
) -> Vec<&'a trainer::data::TokenizedRow> {
    bench.items.iter().flat_map(of).collect()
}

/// The loss by the book, all rows of one kind in one forward: each row's tokens weighed by its rationale's weight.
fn by_the_book(model: &Model, rows: &[&trainer::data::TokenizedRow], options: &ForwardOptions) -> Tensor {
    let pairs: Vec<(&[i64], &[i64])> =
        rows.iter().map(|row| (row.source.as_slice(), row.target.as_slice())).collect();
    let batch = Batch::padded(&pairs);
    let losses = t5::token_losses(&model.forward(&batch, options).unwrap(), &batch.labels);
    let weights: Vec<f32> = rows.iter().map(|row| row.weight as f32).collect();
    let weights = Tensor::from_slice(&weights).unsqueeze(1) * batch.labels.ne(IGNORED);
    (losses * &weights).sum(Kind::Float) / weights.sum(Kind::Float)
}

#[test]
fn each_loss_is_a_mean_over_its_own_tokens_and_alpha_weighs_them() {
    let _turn = chance();
    let bench = Bench::new(Objective::StepByStep);
    let (found, losses) = bench.step(300);
    let model = student(&bench.tokenizer, 1);
    let label = by_the_book(&model, &rows(&bench, |item| &item.labels), &PLAIN);
    let rationale = by_the_book(&model, &rows(&bench, |item| &item.rationales), &PLAIN);
    assert!((losses.label.unwrap() - label.double_value(&[])).abs() < 1e-6);
    assert!((losses.rationale.unwrap() - rationale.double_value(&[])).abs() < 1e-6);
    (label * 0.3 + rationale * 0.7).backward();
    let apart = difference(&gradients(&found), &gradients(&model));
    println!("gradients by the book: {apart:.1e} apart");
    assert!(apart < 1e-6, "{apart:e}");
}

#[test]
fn a_loss_or_gradient_that_is_no_number_names_its_step_and_rows() {
    let _turn = chance();
    let bench = Bench::new(Objective::StepByStep);
    let Learner { mut model, weights, mut optimizer } = Learner::new(student(&bench.tokenizer, 1), 0.0);
    let before = model.snapshot();
    let rows = &bench.batch()[2..5];
    let mut step = |model: &Model, infinite: bool| {
        let mut real = pass(model, &weights, 0.0);
        let mut pass = |part: &[WeightedRow<'_>], draw: Draw| {
            let sums = real(part, draw)?;
            if infinite {
                // A gradient that overflows behind a loss that does not.
                let _ = model.parameters()[0].1.grad().fill_(f64::INFINITY);
            }
            Ok(sums)
        };
        optimise(&bench.spec.training, &mut optimizer, rows, 41, &mut 10_000, &mut pass)
    };
    let said = step(&model, true).unwrap_err().to_string();
    assert!(said.starts_with("step 41: the gradient is not finite, over rows 2, 3, 4: lower"), "{said}");
    assert_eq!(difference(&before, &model.snapshot()), 0.0, "no weight moved");
    let poison = model.parameters()[0].1.full_like(f64::NAN).detach();
    model.copy_from(&[(model.parameters()[0].0.clone(), poison)]).unwrap();
    let error = step(&model, false).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { step: 41, what: "loss", .. }), "{error}");
    assert!(error.to_string().contains("over rows 2, 3, 4: lower `training.learning_rate`"), "{error}");
}

/// A pass that runs out of memory above `most` padded tokens, after its gradients were half made.
fn faulty<'a>(
    model: &'a Model,
    weights: &'a Weights,
    most: usize,
    fail: &'a dyn Fn() -> TrainError,
) -> impl FnMut(&[WeightedRow<'_>], Draw) -> Result<[f64; 2], TrainError> + 'a {
    let mut real = pass(model, weights, 0.2);
    move |part, draw| {
        let sums = real(part, draw)?;
        if padded(part) > most { Err(fail()) } else { Ok(sums) }
    }
}

#[test]
fn a_batch_that_does_not_fit_is_made_again_in_smaller_parts() {
    let _turn = chance();
    let bench = Bench::new(Objective::StepByStep);
    let panics: &dyn Fn() -> TrainError =
        &|| panic!("Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB\")");
    let says: &dyn Fn() -> TrainError = &|| {
        TrainError::Tensor(tch::TchError::Torch(
            "DefaultCPUAllocator: can't allocate memory: you tried".to_owned(),
        ))
    };
    for fail in [panics, says] {
        let run = |most: usize, tokens_max: &mut u32| {
            let Learner { model, weights, mut optimizer } = Learner::new(student(&bench.tokenizer, 1), 0.0);
            let losses = optimise(
                &bench.spec.training,
                &mut optimizer,
                &bench.batch(),
                7,
                tokens_max,
                &mut faulty(&model, &weights, most, fail),
            );
            (model, losses)
        };
        // What a budget far beyond the batch is cut to, and a step under that budget from the start.
        let mut found = 1_000_000;
        let (split, losses) = run(200, &mut found);
        assert!((101..=200).contains(&found), "halved until it fits, no further: {found}");
        let mut same = found;
        let (expected, others) = run(usize::MAX, &mut same);
        assert_eq!(same, found, "nothing ran out");
        assert_eq!(losses.unwrap(), others.unwrap());
        assert_eq!(difference(&gradients(&split), &gradients(&expected)), 0.0, "nothing half made is left");
        assert_eq!(difference(&split.snapshot(), &expected.snapshot()), 0.0);
        // One row alone is too much: nothing is left to cut.
        let mut budget = 1_000_000;
        let (model, losses) = run(10, &mut budget);
        let said = losses.unwrap_err().to_string();
        for needle in [
            "step 7: out of memory, even one row",
            "`training.batch_tokens_max`",
            "`training.input_tokens_max`",
        ] {
            assert!(said.contains(needle), "{said}");
        }
        assert_eq!(
            difference(&student(&bench.tokenizer, 1).snapshot(), &model.snapshot()),
            0.0,
            "no weight moved"
        );
    }
}

#[test]
fn memory_that_really_runs_out_is_told_from_other_panics() {
    let huge = || {
        let tensor = Tensor::zeros([1 << 50], (Kind::Float, tch::Device::Cpu));
        Ok(tensor.numel())
    };
    assert_eq!(catch_out_of_memory(huge).unwrap(), None);
    let failing = || Ok(Tensor::f_zeros([1 << 50], (Kind::Float, tch::Device::Cpu))?.numel());
    assert_eq!(catch_out_of_memory(failing).unwrap(), None);
    assert_eq!(catch_out_of_memory(|| Ok(5)).unwrap(), Some(5));
    let said = catch_out_of_memory(|| Err::<(), _>(TrainError::Data("no rows".to_owned()))).unwrap_err();
    assert_eq!(said.to_string(), "no rows");
    // A mistake of ours must not look like a full memory.
    let other = std::panic::catch_unwind(|| {
        catch_out_of_memory(|| {
            Ok(Tensor::from_slice(&[1_i64, 2]).matmul(&Tensor::from_slice(&[1_i64, 2, 3])).numel())
        })
    });
    assert!(other.is_err());
}

/// Set in the process that the next test starts.
const CHILD: &str = "DISTILLERY_TEST_PANICS";

#[test]
fn only_what_is_dealt_with_is_kept_from_standard_error() {
    if std::env::var_os(CHILD).is_some() {
        assert!(
            catch_out_of_memory(|| -> Result<(), _> { panic!("CUDA out of memory, the first") })
                .unwrap()
                .is_none()
        );
        let other = || catch_out_of_memory(|| -> Result<(), _> { panic!("a mistake, the second") });
        assert!(std::panic::catch_unwind(other).is_err());
        assert!(std::panic::catch_unwind(|| panic!("out of memory elsewhere, the third")).is_err());
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "only_what_is_dealt_with_is_kept_from_standard_error", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("the first"), "{said}");
    assert!(said.contains("the second") && said.contains("the third"), "{said}");
}

/// Steps `from..to` over the epochs of the items, with dropout.
fn go_on(bench: &Bench, learner: &mut Learner, from: u64, to: u64) {
    let lengths: Vec<usize> = bench.items.iter().map(TokenizedExample::length).collect();
    let mut tokens_max = 300;
    for step in from..to {
        let batches = epoch(&lengths, 4, 3, step / 2);
        let batch: Vec<&TokenizedExample> =
            batches[(step % 2) as usize].iter().map(|place| &bench.items[*place]).collect();
        learner.step(&bench.spec, &batch, step, &mut tokens_max, 0.1);
    }
}

fn written(learner: &Learner, folder: &Path) -> (Vec<u8>, Vec<u8>) {
    learner.model.save(folder, u64::MAX).unwrap();
    learner.optimizer.save(&folder.join("moments.safetensors")).unwrap();
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    (read("model.safetensors"), read("moments.safetensors"))
}

#[test]
fn steps_that_go_on_from_a_folder_are_the_same_bytes() {
    let _turn = chance();
    let bench = Bench::new(Objective::StepByStep);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let fresh = || Learner::new(student(&bench.tokenizer, 1), 0.01);
    let mut learner = fresh();
    go_on(&bench, &mut learner, 0, 6);
    let whole = written(&learner, folders[0].path());

    let mut learner = fresh();
    go_on(&bench, &mut learner, 0, 3);
    written(&learner, folders[1].path());
    // Something else draws from the generator meanwhile.
    tch::manual_seed(99);
    let mut learner = Learner::new(Model::load(folders[1].path(), tch::Device::Cpu).unwrap(), 0.01);
    learner.optimizer.load(&folders[1].path().join("moments.safetensors"), 3).unwrap();
    go_on(&bench, &mut learner, 3, 6);
    let resumed = written(&learner, folders[2].path());
    assert!(whole == resumed, "other bytes");
}
