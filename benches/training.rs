//! Speed of whole optimiser steps on the CPU, by student size, row lengths and number format; and where a step's time goes.
//!
//! `training [SECONDS [WORDS]]` measures every case whose name has WORDS for about SECONDS (default 3), after a warm-up, and
//! prints one JSON object a line:
//! `{"case", "examples_per_second", "pass", "norm", "update", "zero", "padded"}`, times in milliseconds a step, `padded` the
//! positions that attention computes over the real tokens. One process measures one build: to compare two builds, run them by turns, pinned to the
//! same core, with `OMP_NUM_THREADS=1` (benches/TRAINING.md).

use domain::Task;
use domain::metric::SplitMix;
use domain::objective::Objective;
use domain::spec::{Draft, JudgingDraft, Precision, StudentDraft, TeacherDraft, TrainingDraft, TrainingSpec};
use kernels::Draw;
use serde_json::json;
use std::error::Error;
use t5::{Compute, Model, Size};
use tch::Device;
use trainer::batches::{WeightedRow, micro_batches, padded, weighted_rows};
use trainer::data::{TokenizedExample, TokenizedRow};
use trainer::optimizer::AdamW;
use trainer::step::{optimise, pass};

const DROPOUT: f64 = 0.1;
const SEED: u64 = 7;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Tokens of rows: a mean, and how far they may lie from it.
type Lengths = (usize, usize);

/// One thing that is measured.
struct Case {
    name: &'static str,
    size: Size,
    vocabulary: i64,
    examples: usize,
    source: Lengths,
    label: Lengths,
    rationale: Lengths,
}

/// The lengths (64/32), and those of `examples/steps/villages.toml` and of SVAMP.
const CASES: [Case; 5] = [
    Case {
        name: "tiny 64/32",
        size: Size::Tiny,
        vocabulary: 400,
        examples: 32,
        source: (64, 0),
        label: (32, 0),
        rationale: (32, 0),
    },
    Case {
        name: "tiny villages",
        size: Size::Tiny,
        vocabulary: 400,
        examples: 32,
        source: (25, 4),
        label: (3, 1),
        rationale: (25, 5),
    },
    Case {
        name: "small 64/32",
        size: Size::Small,
        vocabulary: 32_128,
        examples: 16,
        source: (64, 0),
        label: (32, 0),
        rationale: (32, 0),
    },
    Case {
        name: "small villages",
        size: Size::Small,
        vocabulary: 32_128,
        examples: 16,
        source: (25, 4),
        label: (3, 1),
        rationale: (25, 5),
    },
    Case {
        name: "small svamp",
        size: Size::Small,
        vocabulary: 32_128,
        examples: 16,
        source: (46, 12),
        label: (13, 4),
        rationale: (44, 14),
    },
];

#[allow(clippy::print_stdout, reason = "the figures are this program's output")]
fn main() -> Outcome<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(3.0), |text| text.parse())?;
    let _kept = kernels::KeptMemory::new();
    let words = std::env::args().nth(2).unwrap_or_default();
    tch::set_num_threads(1);
    for case in &CASES {
        for compute in [Compute::Float32, Compute::BFloat16] {
            let name = format!("{} {}", case.name, number_format(compute));
            if name.contains(&words) {
                println!("{}", measure(&name, case, compute, seconds)?);
            }
        }
    }
    Ok(())
}

fn number_format(compute: Compute) -> &'static str {
    match compute {
        Compute::Float32 => "float32",
        Compute::BFloat16 => "bfloat16",
    }
}

fn training() -> Outcome<TrainingSpec> {
    let draft = Draft {
        name: "bench".to_owned(),
        task: Task::built_in("equation").ok_or("a built-in task")?,
        teacher: TeacherDraft::default(),
        judging: JudgingDraft::default(),
        student: StudentDraft::default(),
        training: TrainingDraft {
            objective: Some(Objective::StepByStep),
            precision: Some(Precision::Float32),
            ..TrainingDraft::default()
        },
    };
    Ok(draft.resolve().map_err(|violations| format!("{violations:?}"))?.training)
}

/// Examples of random ids, each a label row and a rationale row over the same source.
fn examples(case: &Case) -> Vec<TokenizedExample> {
    let mut generator = SplitMix::new(SEED);
    let vocabulary = case.vocabulary.unsigned_abs() - 3;
    let mut tokens = |(mean, spread): Lengths| -> Vec<i64> {
        let length = mean - spread + generator.below(2 * spread as u64 + 1) as usize;
        (0..length).map(|_| 3 + generator.below(vocabulary) as i64).collect()
    };
    (0..case.examples as u64)
        .map(|row| {
            let source = tokens(case.source);
            let mut of = |target: Lengths| {
                vec![TokenizedRow { source: source.clone(), target: tokens(target), weight: 1.0 }]
            };
            TokenizedExample { row, labels: of(case.label), rationales: of(case.rationale) }
        })
        .collect()
}

fn measure(name: &str, case: &Case, compute: Compute, length: f64) -> Outcome<serde_json::Value> {
    let training = training()?;
    let mut model = Model::from_scratch(case.size.config(case.vocabulary), 0, Device::Cpu)?;
    let (flat, weights) = model.flatten(compute)?;
    let mut optimizer = AdamW::new(flat, 0.01, true);
    let items = examples(case);
    let items: Vec<&TokenizedExample> = items.iter().collect();
    let mut tokens_max = training.batch_tokens_max;
    let mut passes = 0.0;
    let mut step = 0;
    let mut began = spent()?;
    loop {
        let mut real = pass(&model, &weights, DROPOUT);
        let mut timed = |part: &[WeightedRow<'_>], draw: Draw| {
            let began = spent().unwrap_or(f64::NAN);
            let sums = real(part, draw);
            passes += spent().unwrap_or(f64::NAN) - began;
            sums
        };
        optimise(&training, &mut optimizer, &items, step, &mut tokens_max, &mut timed)?;
        step += 1;
        // Two steps warm up.
        if step == 2 {
            (began, passes) = (spent()?, 0.0);
        }
        if step > 3 && spent()? - began > length {
            break;
        }
    }
    let steps = (step - 2) as f64;
    let whole = (spent()? - began) / steps;
    let parts = micro_batches(weighted_rows(&items, Some(0.5)), tokens_max as usize);
    let real: usize = items
        .iter()
        .flat_map(|item| item.labels.iter().chain(&item.rationales))
        .map(|row| row.source.len() + row.target.len())
        .sum();
    let padding = parts.iter().map(|part| padded(part)).sum::<usize>() as f64 / real as f64;
    Ok(json!({
        "case": name,
        "examples_per_second": round(items.len() as f64 / whole),
        "pass": round(passes / steps * 1e3),
        "norm": round(timed(&mut optimizer, |optimizer| drop(optimizer.gradient_norm()))),
        "update": round(timed(&mut optimizer, |optimizer| drop(optimizer.step(1e-9, 1.0)))),
        "zero": round(timed(&mut optimizer, |optimizer| drop(optimizer.begin()))),
        "step": round(whole * 1e3),
        "parts": parts.len(),
        "padded": round(padding),
    }))
}

/// Seconds that this thread has run, so that what else the machine does is not counted.
fn spent() -> Outcome<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("the first number of schedstat")?.parse()?;
    Ok(nanoseconds * 1e-9)
}

/// Milliseconds of one call, the least of five.
fn timed(optimizer: &mut AdamW, mut call: impl FnMut(&mut AdamW)) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let began = spent().unwrap_or(f64::NAN);
        call(optimizer);
        least = least.min(spent().unwrap_or(f64::NAN) - began);
    }
    least * 1e3
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
