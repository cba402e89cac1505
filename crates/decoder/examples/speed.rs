//! How fast the engine is on this machine: random weights of T5 v1.1 small and base, 64 tokens in, 32 out, greedy.
//!
//! `cargo run --release --example speed -- [peak|small|base] [batches] [threads] [int8|wide|bfloat16]`, such as `small 1,16 1,2`. Prints one JSON object
//! a line: medians of nine runs, with the fastest and the slowest.
#![allow(clippy::print_stdout, reason = "it prints its results")]

use decoder::{
    Activation, Answer, Encoded, Engine, Error, Feed, Model, Precision, Precisions, Result, Shape, Slot,
    Slots, Tile, Want,
};
use std::sync::Arc;
use std::time::Instant;

const RUNS: usize = 9;
const SOURCE: usize = 64;
const TARGET: usize = 32;

fn shape(size: &str) -> Shape {
    let (d_model, d_ff, layers, heads) = if size == "base" { (768, 2048, 12, 12) } else { (512, 1024, 8, 6) };
    Shape {
        d_model,
        d_kv: 64,
        d_ff,
        num_layers: layers,
        num_decoder_layers: layers,
        num_heads: heads,
        vocab_size: 32_128,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        activation: Activation::GeluTanh,
        gated: true,
        own_decoder_embedding: false,
        own_head: true,
        scale_decoder_outputs: false,
        decoder_start_token_id: 0,
        eos_token_id: 1,
    }
}

/// Evenly distributed values of the usual standard deviations.
fn values(shape: &Shape, name: &str) -> Option<Vec<f32>> {
    let (model, inner) = (shape.d_model, shape.num_heads * shape.d_kv);
    let (count, width) = match name.strip_suffix(".weight")?.rsplit('.').next()? {
        "shared" => (shape.vocab_size * model, 1),
        "lm_head" => (shape.vocab_size * model, model),
        "relative_attention_bias" => (shape.relative_attention_num_buckets * shape.num_heads, 1),
        "layer_norm" | "final_layer_norm" => return Some(vec![1.0; model]),
        "q" => (inner * model, model * shape.d_kv),
        "k" | "v" => (inner * model, model),
        "o" => (model * inner, inner),
        "wi_0" | "wi_1" => (shape.d_ff * model, model),
        "wo" => (model * shape.d_ff, shape.d_ff),
        _ => return None,
    };
    let scale = (12.0 / width as f32).sqrt();
    let mut state =
        name.bytes().fold(3_u64, |state, byte| state.wrapping_mul(131).wrapping_add(u64::from(byte)));
    let value = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * scale
    };
    Some((0..count).map(value).collect())
}

/// Median, smallest and largest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    [at(values.len() / 2), at(0), at(values.len().saturating_sub(1))]
}

fn show([median, least, most]: [f64; 3]) -> String {
    format!("[{median:.4}, {least:.4}, {most:.4}]")
}

/// Seconds that the main thread has had a processor: with one thread, other load does not count.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    nanoseconds.unwrap_or(f64::NAN) / 1e9
}

/// What a run took, in seconds of the clock and of the main thread's processor, and the first row's tokens.
struct Run {
    encoder: f64,
    steps: f64,
    encoder_processor: f64,
    steps_processor: f64,
    tokens: Vec<u32>,
}

fn run(engine: &mut Engine, rows: &[&[u32]]) -> Result<Run> {
    let (start, processor) = (Instant::now(), processor_seconds());
    let encoded: Vec<Encoded> = engine.encode(rows)?.into_iter().collect::<Result<_>>()?;
    let (encoder, encoder_processor) = (start.elapsed().as_secs_f64(), processor_seconds() - processor);
    let mut slots = Slots::new(engine.model(), rows.len(), TARGET)?;
    let joined: Vec<Slot> = encoded.iter().map(|row| slots.join(row, TARGET)).collect::<Result<_>>()?;
    let mut tokens = vec![0_u32; rows.len()];
    let mut first = Vec::new();
    let (start, processor) = (Instant::now(), processor_seconds());
    for _ in 0..TARGET {
        let feeds = joined.iter().zip(&tokens).map(|(slot, token)| Feed {
            slot: *slot,
            tokens: std::slice::from_ref(token),
            want: Want::Choices,
        });
        let feeds: Vec<Feed<'_>> = feeds.collect();
        let answers = engine.step(&mut slots, &feeds)?;
        for (token, answer) in tokens.iter_mut().zip(answers) {
            if let Answer::Choices(choices) = answer {
                *token = choices.first().map_or(0, |choice| choice.id);
            }
        }
        first.extend(tokens.first());
    }
    let (steps, steps_processor) = (start.elapsed().as_secs_f64(), processor_seconds() - processor);
    Ok(Run { encoder, steps, encoder_processor, steps_processor, tokens: first })
}

fn measure(size: &str, engine: &mut Engine, batch: usize, threads: usize) -> Result<()> {
    let rows: Vec<Vec<u32>> = (0..batch)
        .map(|row| (0..SOURCE).map(|place| (3 + (row * 7919 + place * 104_729) % 32_000) as u32).collect())
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    run(engine, &rows)?;
    let (mut runs, mut reading) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        runs.push(run(engine, &rows)?);
        reading.push(engine.reading_seconds()? * 1e3);
    }
    let of = |of: &dyn Fn(&Run) -> f64| spread(runs.iter().map(of).collect());
    let a_step = 1e3 / TARGET as f64;
    let bytes = engine.model().step_bytes() as f64;
    let (step, read) = (of(&|run| run.steps * a_step), spread(reading));
    println!(
        "{{\"size\":\"{size}\",\"tile\":\"{:?}\",\"batch\":{batch},\"threads\":{threads},\"tokens_per_second\":{},\
         \"encoder_ms\":{},\"step_ms\":{},\"encoder_processor_ms\":{},\"step_processor_ms\":{},\"read_ms\":{},\
         \"step_megabytes\":{:.1},\"step_gigabytes_per_second\":{:.2},\"read_gigabytes_per_second\":{:.2},\
         \"share_of_reading\":{:.3},\"tokens\":{:?}}}",
        engine.tile(),
        show(of(&|run| (batch * TARGET) as f64 / (run.encoder + run.steps))),
        show(of(&|run| run.encoder * 1e3)),
        show(step),
        show(of(&|run| run.encoder_processor * 1e3)),
        show(of(&|run| run.steps_processor * a_step)),
        show(read),
        bytes / 1e6,
        bytes / step[0] / 1e6,
        bytes / read[0] / 1e6,
        read[0] / step[0],
        runs.first().and_then(|run| run.tokens.get(..8)).unwrap_or_default(),
    );
    Ok(())
}

fn numbers(list: Option<&String>, default: &[usize]) -> Vec<usize> {
    list.map_or(default.to_vec(), |list| list.split(',').filter_map(|number| number.parse().ok()).collect())
}

/// What each tile does at best.
fn peaks() -> Result<()> {
    let mut peaks = Vec::new();
    for tile in Tile::available().into_iter().rev().take(2) {
        for (rows, units) in [(1, 4), (4, 4), (16, 4), (32, 4), (32, 8), (32, 12), (32, 16), (32, 32)] {
            let peak = (0..RUNS).map(|_| tile.peak(rows, units)).collect::<Result<Vec<_>>>()?;
            peaks.push(format!("\"{tile:?} {rows}x64x{}\":{:.0}", units * 64, spread(peak)[2] / 1e9));
        }
    }
    println!("{{\"peak_gigamultiplications_per_second\":{{{}}}}}", peaks.join(","));
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let size = arguments.get(1).map_or("small", String::as_str);
    let (batches, threads) = (numbers(arguments.get(2), &[1, 16]), numbers(arguments.get(3), &[1, 2]));
    if arguments.get(1).is_none_or(|size| size == "peak") {
        peaks()?;
    }
    let precisions = match arguments.get(4).map(String::as_str) {
        None | Some("int8") => Precisions::default(),
        Some("wide") => Precisions { feed_forward_output: Precision::Int8Wide, ..Precisions::default() },
        Some("bfloat16") => Precisions { feed_forward_output: Precision::Bfloat16, ..Precisions::default() },
        Some(other) => return Err(Error::Input(format!("no precision `{other}`"))),
    };
    let shape = shape(size);
    let start = Instant::now();
    let model = Arc::new(Model::pack(&shape, &|name| values(&shape, name), &precisions)?);
    println!(
        "{{\"size\":\"{size}\",\"megabytes\":{:.1},\"pack_seconds\":{:.2}}}",
        model.bytes() as f64 / 1e6,
        start.elapsed().as_secs_f64()
    );
    for threads in threads {
        let mut engine = Engine::new(Arc::clone(&model), threads)?;
        for batch in &batches {
            measure(size, &mut engine, *batch, threads)?;
        }
    }
    Ok(())
}
