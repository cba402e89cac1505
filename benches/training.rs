//! Speed of whole optimiser steps on the CPU, by student size, row lengths and number format; and where a step's time goes.
//!
//! `training [SECONDS [WORDS]]` measures every case whose name has WORDS for about SECONDS (default 3), after a warm-up, and
//! prints one JSON object a line:
//! `{"case", "examples_per_second", "pass", "norm", "update", "zero", "padded"}`, times in milliseconds a step, `padded` the
//! positions that attention computes over the real tokens. One process measures one build: to compare two builds, run them by turns, pinned to the
//! same core, with `OMP_NUM_THREADS=1` (benches/TRAINING.md).
//!
//! `training rounds CASE FORMAT THREADS` makes one step of wall time for each line of standard input, a step's number, and answers
//! with a line of JSON; at the line `figures`, it says where a step's time goes. `benches/training.py` asks it so, by turns with
//! its peers.

use domain::Task;
use domain::metric::SplitMix;
use domain::objective::Objective;
use domain::spec::{Draft, JudgingDraft, Precision, StudentDraft, TeacherDraft, TrainingDraft, TrainingSpec};
use kernels::Draw;
use serde_json::json;
use std::error::Error;
use std::io::BufRead;
use std::time::Instant;
use t5::{Compute, Config, Model, Size, Weights};
use tch::{Device, Kind, Tensor};
use trainer::batches::{WeightedRow, micro_batches, padded, weighted_rows};
use trainer::data::{TokenizedExample, TokenizedRow};
use trainer::optimizer::AdamW;
use trainer::step::{optimise, pass};

const DROPOUT: f64 = 0.1;
const SEED: u64 = 7;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Tokens of an example: its source, its label, its rationale; the ends of the targets counted.
type Tokens = [usize; 3];

/// One of a row's lengths.
type Length = fn(&WeightedRow<'_>) -> usize;

/// One thing that is measured.
struct Case {
    name: &'static str,
    size: Size,
    vocabulary: i64,
    /// Examples a step.
    examples: usize,
    lengths: fn() -> Outcome<Vec<Tokens>>,
}

/// The lengths of 512 train rows of each of the paper's datasets that are at hand, with PaLM-540B's rationales: words, parts of long
/// words and signs, counted.
const LENGTHS: &str = include_str!("lengths.json");

/// Fixed lengths, those of `examples/steps/villages.toml`, and the paper's datasets.
const CASES: [Case; 8] = [
    Case { name: "tiny 64/32", size: Size::Tiny, vocabulary: 400, examples: 32, lengths: short },
    Case { name: "tiny villages", size: Size::Tiny, vocabulary: 400, examples: 32, lengths: villages },
    Case { name: "small 64/32", size: Size::Small, vocabulary: 32_128, examples: 16, lengths: short },
    Case { name: "small 256/64", size: Size::Small, vocabulary: 32_128, examples: 16, lengths: long },
    Case { name: "small villages", size: Size::Small, vocabulary: 32_128, examples: 16, lengths: villages },
    Case { name: "small svamp", size: Size::Small, vocabulary: 32_128, examples: 16, lengths: svamp },
    Case { name: "small cqa", size: Size::Small, vocabulary: 32_128, examples: 16, lengths: cqa },
    Case { name: "base 64/32", size: Size::Base, vocabulary: 32_128, examples: 16, lengths: short },
];

fn short() -> Outcome<Vec<Tokens>> {
    Ok(vec![[64, 32, 32]])
}

fn long() -> Outcome<Vec<Tokens>> {
    Ok(vec![[256, 64, 64]])
}

/// Means of 25, 3 and 25 tokens, each with a spread.
fn villages() -> Outcome<Vec<Tokens>> {
    let mut generator = SplitMix::new(SEED);
    let mut near =
        |mean: usize, spread: usize| mean - spread + generator.below(2 * spread as u64 + 1) as usize;
    Ok((0..512).map(|_| [near(25, 4), near(3, 1), near(25, 5)]).collect())
}

fn svamp() -> Outcome<Vec<Tokens>> {
    listed("svamp")
}

fn cqa() -> Outcome<Vec<Tokens>> {
    listed("cqa")
}

fn listed(name: &str) -> Outcome<Vec<Tokens>> {
    let mut all: std::collections::BTreeMap<String, Vec<Tokens>> = serde_json::from_str(LENGTHS)?;
    all.remove(name).ok_or_else(|| format!("no lengths of {name}").into())
}

#[allow(clippy::print_stdout, reason = "the figures are this program's output")]
fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _kept = kernels::KeptMemory::new();
    if let ["rounds", case, format, threads] = words.as_slice() {
        tch::set_num_threads(threads.parse()?);
        return rounds(case, format);
    }
    let seconds = words.first().map_or(Ok(3.0), |text| text.parse())?;
    let part = words.get(1).copied().unwrap_or_default();
    tch::set_num_threads(1);
    for case in &CASES {
        for compute in [Compute::Float32, Compute::BFloat16] {
            let name = format!("{} {}", case.name, number_format(compute));
            if name.contains(part) {
                println!("{}", Bench::new(case, compute)?.measure(&name, seconds)?);
            }
        }
    }
    Ok(())
}

/// Answers the lines of standard input.
#[allow(clippy::print_stdout, reason = "the figures are this program's output")]
fn rounds(name: &str, format: &str) -> Outcome<()> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    let compute = match format {
        "float32" => Compute::Float32,
        "bfloat16" => Compute::BFloat16,
        _ => return Err("the number format is float32 or bfloat16".into()),
    };
    let mut bench = Bench::new(case, compute)?;
    for line in std::io::stdin().lock().lines() {
        let said = match line?.as_str() {
            "figures" => bench.figures()?,
            number => bench.round(number.parse()?)?,
        };
        println!("{said}");
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

/// An example of random ids: a label row and a rationale row over the same source.
fn example(row: u64, [source, label, rationale]: Tokens, vocabulary: i64) -> TokenizedExample {
    let mut generator = SplitMix::new(SEED ^ (row << 20));
    let mut tokens = |length| {
        (0..length).map(|_| 3 + generator.below(vocabulary.unsigned_abs() - 3) as i64).collect::<Vec<i64>>()
    };
    let source = tokens(source);
    let mut of =
        |target: usize| vec![TokenizedRow { source: source.clone(), target: tokens(target), weight: 1.0 }];
    TokenizedExample { row, labels: of(label), rationales: of(rationale) }
}

/// A student and its optimiser at work on one case.
struct Bench {
    training: TrainingSpec,
    model: Model,
    weights: Weights,
    optimizer: AdamW,
    lengths: Vec<Tokens>,
    compute: Compute,
    examples: usize,
    tokens_max: u32,
    step: u64,
}

impl Bench {
    fn new(case: &Case, compute: Compute) -> Outcome<Self> {
        let training = training()?;
        let mut model = Model::from_scratch(case.size.config(case.vocabulary), 0, Device::Cpu)?;
        let (flat, weights) = model.flatten(compute)?;
        let optimizer = AdamW::new(flat, 0.01, true);
        let tokens_max = training.batch_tokens_max;
        let (examples, lengths) = (case.examples, (case.lengths)()?);
        Ok(Self { training, model, weights, optimizer, lengths, compute, examples, tokens_max, step: 0 })
    }

    /// The examples of step number `number`: those that follow each other in the list of lengths, from its start again where it ends.
    fn items(&self, number: usize) -> Vec<TokenizedExample> {
        let first = number * self.examples;
        let lengths =
            self.lengths.iter().copied().cycle().skip(first % self.lengths.len()).take(self.examples);
        let vocabulary = self.model.config().vocab_size;
        (first as u64..).zip(lengths).map(|(row, lengths)| example(row, lengths, vocabulary)).collect()
    }

    /// One optimiser step; `on_pass` is told the seconds of each pass.
    fn optimise(&mut self, items: &[TokenizedExample], on_pass: &mut dyn FnMut(f64)) -> Outcome<()> {
        let items: Vec<&TokenizedExample> = items.iter().collect();
        let mut real = pass(&self.model, &self.weights, DROPOUT);
        let mut timed = |part: &[WeightedRow<'_>], draw: Draw| {
            let began = spent().unwrap_or(f64::NAN);
            let sums = real(part, draw);
            on_pass(spent().unwrap_or(f64::NAN) - began);
            sums
        };
        optimise(&self.training, &mut self.optimizer, &items, self.step, &mut self.tokens_max, &mut timed)?;
        self.step += 1;
        Ok(())
    }

    /// Seconds of step number `number`, and its real and padded tokens.
    fn round(&mut self, number: usize) -> Outcome<serde_json::Value> {
        let items = self.items(number);
        let began = Instant::now();
        self.optimise(&items, &mut |_| ())?;
        let seconds = began.elapsed().as_secs_f64();
        let (real, computed, attended) = self.tokens(&items);
        Ok(json!({"seconds": seconds, "real": real, "computed": computed, "attended": attended}))
    }

    fn parts<'a>(&self, items: &'a [TokenizedExample]) -> Vec<Vec<WeightedRow<'a>>> {
        let items: Vec<&TokenizedExample> = items.iter().collect();
        micro_batches(weighted_rows(&items, Some(0.5)), self.tokens_max as usize)
    }

    /// Tokens of a step: real ones, those that products, norms and losses compute (rows lie end to end, and each part is filled up),
    /// and positions of attention.
    fn tokens(&self, items: &[TokenizedExample]) -> (usize, usize, usize) {
        let parts = self.parts(items);
        let sum = |part: &[WeightedRow<'_>], of: Length| part.iter().map(of).sum::<usize>();
        let lengths: Vec<[usize; 2]> = parts
            .iter()
            .map(|part| {
                [sum(part, |share| share.row.source.len()), sum(part, |share| share.row.target.len())]
            })
            .collect();
        let multiple = usize::try_from(t5::TOKENS_MULTIPLE).unwrap_or(1);
        let computed = lengths.iter().flatten().map(|tokens| tokens.next_multiple_of(multiple)).sum();
        (lengths.iter().flatten().sum(), computed, parts.iter().map(|part| padded(part)).sum())
    }

    /// Where a step's time goes: milliseconds of its products alone, of AdamW, of the gradients' norm; peak memory.
    fn figures(&mut self) -> Outcome<serde_json::Value> {
        let items = self.items(0);
        let mut products = Products { kind: kind(self.compute), seconds: 0.0, operations: 0.0 };
        for part in self.parts(&items) {
            products.of_part(self.model.config(), &part);
        }
        Ok(json!({
            "products_ms": round(products.seconds * 1e3),
            "products_gflops": round(products.operations / products.seconds * 1e-9),
            "norm_ms": round(timed(&mut self.optimizer, |optimizer| drop(optimizer.gradient_norm()))),
            "update_ms": round(timed(&mut self.optimizer, |optimizer| drop(optimizer.step(1e-9, 1.0)))),
            "parts": self.parts(&items).len(),
            "peak_mb": peak_megabytes()?,
        }))
    }

    fn measure(&mut self, name: &str, length: f64) -> Outcome<serde_json::Value> {
        let items = self.items(0);
        let (mut passes, mut steps) = (0.0, 0);
        let mut began = spent()?;
        loop {
            self.optimise(&items, &mut |seconds| passes += seconds)?;
            steps += 1;
            // Two steps warm up.
            if steps == 2 {
                (began, passes) = (spent()?, 0.0);
            }
            if steps > 3 && spent()? - began > length {
                break;
            }
        }
        let steps = f64::from(steps - 2);
        let whole = (spent()? - began) / steps;
        let (real, _, attended) = self.tokens(&items);
        Ok(json!({
            "case": name,
            "examples_per_second": round(items.len() as f64 / whole),
            "pass": round(passes / steps * 1e3),
            "norm": round(timed(&mut self.optimizer, |optimizer| drop(optimizer.gradient_norm()))),
            "update": round(timed(&mut self.optimizer, |optimizer| drop(optimizer.step(1e-9, 1.0)))),
            "zero": round(timed(&mut self.optimizer, |optimizer| drop(optimizer.begin()))),
            "step": round(whole * 1e3),
            "parts": self.parts(&items).len(),
            "padded": round(attended as f64 / real as f64),
        }))
    }
}

fn kind(compute: Compute) -> Kind {
    match compute {
        Compute::Float32 => Kind::Float,
        Compute::BFloat16 => Kind::BFloat16,
    }
}

/// The matrix products of a step, made alone: the time that no step can go below in this library.
struct Products {
    kind: Kind,
    seconds: f64,
    operations: f64,
}

impl Products {
    /// Those of one part, forward and back: projections over real tokens, scores and mixtures over the positions of attention.
    fn of_part(&mut self, config: &Config, part: &[WeightedRow<'_>]) {
        let count = |of: Length| part.iter().map(of).sum::<usize>() as i64;
        let widest = |of: Length| part.iter().map(of).max().unwrap_or(1) as i64;
        let (source, target): (Length, Length) =
            (|share| share.row.source.len(), |share| share.row.target.len());
        let (read, written) = (count(source), count(target));
        let (d, inner, ff) = (config.d_model, config.inner(), config.d_ff);
        let gates = if config.feed_forward.gated { 2 } else { 1 };
        for (layers, tokens) in [(config.num_layers, read), (config.num_decoder_layers, written)] {
            self.project(layers, tokens, d, 3 * inner);
            self.project(layers, tokens, inner, d);
            self.project(layers, tokens, d, gates * ff);
            self.project(layers, tokens, ff, d);
        }
        self.project(config.num_decoder_layers, written, d, inner);
        self.project(config.num_decoder_layers, written, inner, d);
        self.project(config.num_decoder_layers, read, d, 2 * inner);
        self.project(1, written, d, config.vocab_size);
        let (rows, read, written) = (part.len() as i64, widest(source), widest(target));
        for (layers, queries, keys) in [
            (config.num_layers, read, read),
            (config.num_decoder_layers, written, written),
            (config.num_decoder_layers, written, read),
        ] {
            let heads = rows * config.num_heads;
            let shape = |length: i64| [heads, length, config.d_kv];
            let (query, key) = (self.matrix(&shape(queries)), self.matrix(&shape(keys)));
            let scores = self.matrix(&[heads, queries, keys]);
            let operations = 12.0 * (heads * queries * keys * config.d_kv) as f64;
            self.time(layers, operations, || {
                let forward = (query.matmul(&key.transpose(1, 2)), scores.matmul(&key));
                let back = (scores.matmul(&key), scores.transpose(1, 2).matmul(&query));
                (forward, back, (query.matmul(&key.transpose(1, 2)), scores.transpose(1, 2).matmul(&query)))
            });
        }
    }

    /// A projection of `tokens` rows from `into` to `out` numbers, and its two gradients, in each of `layers`.
    fn project(&mut self, layers: i64, tokens: i64, into: i64, out: i64) {
        let weight = self.matrix(&[out, into]);
        let (given, gradient) = (self.matrix(&[tokens, into]), self.matrix(&[tokens, out]));
        let operations = 6.0 * tokens as f64 * into as f64 * out as f64;
        self.time(layers, operations, || {
            (given.matmul(&weight.tr()), gradient.matmul(&weight), gradient.tr().matmul(&given))
        });
    }

    fn matrix(&self, shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(self.kind)
    }

    /// The least of four rounds, as often as there are layers.
    fn time<R>(&mut self, layers: i64, operations: f64, mut round: impl FnMut() -> R) {
        let mut least = f64::INFINITY;
        for _ in 0..4 {
            let began = Instant::now();
            drop(round());
            least = least.min(began.elapsed().as_secs_f64());
        }
        self.seconds += least * layers as f64;
        self.operations += operations * layers as f64;
    }
}

/// The most memory that this process has had, in megabytes.
fn peak_megabytes() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM in the status")?;
    let kibibytes: f64 = line.split_whitespace().nth(1).ok_or("no number behind VmHWM")?.parse()?;
    Ok(round(kibibytes * 1024.0 / 1e6))
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
