//! The part of `scripts/bench.sh` for this project: one training step, and greedy decoding.
//!
//! `measure FOLDER` makes a T5 v1.1 of the small shape with random weights, saves it to FOLDER so that the peers load the
//! very same one, and prints one JSON object a line: `{"what", "seconds"}`, each the median of some rounds.

use kernels::Draw;
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Instant;
use t5::{Compute, Model, Pair, Size};
use tch::{Device, Kind, Tensor};
use trainer::optimizer::AdamW;

const VOCABULARY: i64 = 32_128;
const SOURCE: i64 = 64;
const TARGET: i64 = 32;
/// Examples of one training step: a label row and a rationale row each.
const EXAMPLES: i64 = 16;
const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[allow(clippy::print_stdout, reason = "the figures are this program's output")]
fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("usage: measure FOLDER")?;
    let threads = std::thread::available_parallelism()?.get();
    tch::set_num_threads(i32::try_from(threads)?);
    let mut model = Model::from_scratch(Size::Small.config(VOCABULARY), 0, Device::Cpu)?;
    model.save(Path::new(&folder), u64::MAX)?;
    for compute in [Compute::Float32, Compute::BFloat16] {
        let name = name(compute);
        for rows in [1, 16] {
            let (seconds, tokens) = decode(&model, compute, rows)?;
            let first: Vec<i64> = tokens.first().cloned().unwrap_or_default();
            println!(
                "{}",
                json!({"what": format!("decode {name} {rows}"), "seconds": seconds, "first": first})
            );
        }
    }
    for compute in [Compute::Float32, Compute::BFloat16] {
        let seconds = train(&mut model, compute)?;
        println!("{}", json!({"what": format!("train {}", name(compute)), "seconds": seconds}));
    }
    Ok(())
}

fn name(compute: Compute) -> &'static str {
    match compute {
        Compute::Float32 => "float32",
        Compute::BFloat16 => "bfloat16",
    }
}

/// Ids, computed in the same way for the peers: row r, position p is 3 + (r * 7919 + p * 104729) mod 32000.
fn numbers(rows: i64, length: i64) -> Vec<Vec<i64>> {
    let row = |row: i64| (0..length).map(|place| 3 + (row * 7919 + place * 104_729) % 32_000).collect();
    (0..rows).map(row).collect()
}

/// Those ids as `[rows, length]`.
fn ids(rows: i64, length: i64) -> Tensor {
    Tensor::from_slice(&numbers(rows, length).concat()).reshape([rows, length])
}

/// Seconds for `TARGET` greedy tokens of `rows` rows, including the encoder, and the tokens.
fn decode(model: &Model, compute: Compute, rows: i64) -> Outcome<(f64, Vec<Vec<i64>>)> {
    let input = ids(rows, SOURCE);
    let mask = Tensor::ones([rows, SOURCE], (Kind::Bool, Device::Cpu));
    let weights = model.weights(compute)?;
    let mut texts = Vec::new();
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        let began = Instant::now();
        let encoded = model.encode(&weights, &input, &mask)?;
        let mut state = model.start(&weights, &encoded)?;
        let mut tokens = vec![model.config().decoder_start_token_id; usize::try_from(rows)?];
        texts = vec![Vec::new(); tokens.len()];
        for _ in 0..TARGET {
            tokens = Vec::try_from(model.step(&weights, &mut state, &tokens)?.argmax(-1, false))?;
            for (text, token) in texts.iter_mut().zip(&tokens) {
                text.push(*token);
            }
        }
        rounds.push(began.elapsed().as_secs_f64());
    }
    Ok((median(rounds), texts))
}

/// Seconds of one step over `EXAMPLES` examples, both tasks in one forward: pass, gradients, clipping, AdamW.
fn train(model: &mut Model, compute: Compute) -> Outcome<f64> {
    let rows = EXAMPLES * 2;
    let (sources, targets) = (numbers(rows, SOURCE), numbers(rows, TARGET));
    let pairs: Vec<Pair<'_>> =
        sources.iter().map(Vec::as_slice).zip(targets.iter().map(Vec::as_slice)).collect();
    let (flat, weights) = model.flatten(compute)?;
    let mut optimizer = AdamW::new(flat, 0.0, true);
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        let began = Instant::now();
        optimizer.begin()?;
        let draw = Draw { key: 0, place: 0, part: 0 };
        model.losses(&weights, &pairs, 0.0, draw)?.mean(Kind::Float).backward();
        optimizer.collect()?;
        let scale = (1.0 / (optimizer.gradient_norm()? + 1e-6)).min(1.0);
        optimizer.step(1e-9, scale)?;
        rounds.push(began.elapsed().as_secs_f64());
    }
    Ok(median(rounds))
}

/// The median of all rounds except the first, which warms up.
fn median(mut rounds: Vec<f64>) -> f64 {
    let mut warm = rounds.split_off(1);
    warm.sort_by(f64::total_cmp);
    warm.get(warm.len() / 2).copied().unwrap_or(f64::NAN)
}
