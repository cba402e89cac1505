//! The golden checkpoints of crate `t5`: what `transformers` computed in float32.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may stop at what it does not expect"
)]

mod common;

use common::reference::{Reference, bfloat16};
use common::{encode, golden, logits};
use decoder::{Activation, Engine, LabelTree, Model, Precision, Precisions, Shape};
use std::sync::Arc;

fn v1_0() -> Shape {
    Shape {
        d_model: 16,
        d_kv: 4,
        d_ff: 24,
        num_layers: 2,
        num_decoder_layers: 3,
        num_heads: 3,
        vocab_size: 64,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 20,
        activation: Activation::Relu,
        gated: false,
        own_head: false,
        scale_decoder_outputs: true,
        ..common::tiny()
    }
}

fn v1_1() -> Shape {
    Shape {
        d_model: 24,
        d_kv: 8,
        d_ff: 32,
        num_decoder_layers: 1,
        num_heads: 2,
        vocab_size: 80,
        ..common::tiny()
    }
}

fn kind(activation: Activation) -> Shape {
    Shape {
        d_model: 8,
        d_kv: 4,
        d_ff: 12,
        num_layers: 1,
        num_decoder_layers: 1,
        num_heads: 2,
        vocab_size: 28,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 20,
        activation,
        ..common::tiny()
    }
}

fn cases() -> Vec<(&'static str, Shape)> {
    vec![
        ("v1_0", v1_0()),
        ("v1_1", v1_1()),
        ("kinds/gated-gelu-erf", kind(Activation::Gelu)),
        ("kinds/dense-act-fn-silu", kind(Activation::Silu)),
        ("kinds/gated-relu", kind(Activation::Relu)),
        ("kinds/scaled-own-head", Shape { scale_decoder_outputs: true, ..kind(Activation::GeluTanh) }),
        ("kinds/second-embedding", Shape { own_decoder_embedding: true, ..kind(Activation::GeluTanh) }),
    ]
}

fn model(name: &str, shape: &Shape, precision: Precision) -> Arc<Model> {
    let tensors = golden(name, "model.safetensors");
    let find = |name: &str| tensors.floats(name);
    Arc::new(Model::pack(shape, &find, &Precisions::all(precision)).unwrap())
}

/// Sources without their padding.
fn sources(name: &str) -> Vec<Vec<u32>> {
    let expected = golden(name, "expected.safetensors");
    let rows = expected.rows("input_ids").into_iter().zip(expected.rows("input_mask"));
    rows.map(|(ids, mask)| {
        ids.into_iter().zip(mask).filter(|(_, shown)| *shown != 0.0).map(|(id, _)| id as u32).collect()
    })
    .collect()
}

/// What `transformers` computed, and what is compared with it: `[positions][vocab]`.
struct Compared {
    exact: Vec<Vec<f64>>,
    found: Vec<Vec<f64>>,
}

impl Compared {
    fn print(&self, what: &str) -> (f64, f64) {
        let (mut difference, mut largest, mut same) = (0.0_f64, 0.0_f64, 0);
        for (exact, found) in self.exact.iter().zip(&self.found) {
            for (exact, found) in exact.iter().zip(found) {
                difference = difference.max((exact - found).abs());
                largest = largest.max(exact.abs());
            }
            same += usize::from(top(exact) == top(found));
        }
        println!(
            "{what}: off by {difference:.1e} of {largest:.1}, same likeliest token {same}/{}",
            self.exact.len()
        );
        (difference, largest)
    }
}

fn top(logits: &[f64]) -> usize {
    (0..logits.len()).max_by(|left, right| logits[*left].total_cmp(&logits[*right])).unwrap()
}

/// `logits(source, inputs)`, `[inputs][vocab]`.
type Logits<'a> = dyn FnMut(&[u32], &[u32]) -> Vec<Vec<f64>> + 'a;

/// Calls `logits` for every row of a golden checkpoint.
fn compare(name: &str, shape: &Shape, logits: &mut Logits<'_>) -> Compared {
    let expected = golden(name, "expected.safetensors");
    let rows = sources(name).into_iter().zip(expected.rows("labels")).zip(expected.rows("logits"));
    let (mut all, mut found) = (Vec::new(), Vec::new());
    for ((source, labels), exact) in rows {
        let inputs = std::iter::once(0.0).chain(labels).map(|id| if id < 0.0 { 0 } else { id as u32 });
        let inputs: Vec<u32> = inputs.take(exact.len() / shape.vocab_size).collect();
        all.extend(exact.chunks(shape.vocab_size).map(<[f64]>::to_vec));
        found.extend(logits(&source, &inputs));
    }
    Compared { exact: all, found }
}

fn engine_logits(engine: &mut Engine, source: &[u32], inputs: &[u32]) -> Vec<Vec<f64>> {
    let encoded = encode(engine, &[source]);
    let wide = |logits: Vec<f32>| logits.into_iter().map(f64::from).collect();
    logits(engine, &encoded[0], inputs).into_iter().map(wide).collect()
}

/// The readable model is that of `transformers`; in bfloat16 weights, keys and values, it is the engine's.
#[test]
fn logits_are_those_of_transformers_and_of_the_readable_model() {
    for (name, shape) in cases() {
        let tensors = golden(name, "model.safetensors");
        let tensors = |name: &str| tensors.floats(name);
        let exact = Reference { shape: &shape, tensors: &tensors, round: |value| value };
        let exact = compare(name, &shape, &mut |source, inputs| exact.logits(source, inputs));
        let (difference, _) = exact.print(&format!("{name}, readable"));
        assert!(difference < 1e-4, "{name}: {difference}");
        let rounded = Reference { shape: &shape, tensors: &tensors, round: bfloat16 };
        let rounded = compare(name, &shape, &mut |source, inputs| rounded.logits(source, inputs));
        rounded.print(&format!("{name}, readable in bfloat16"));
        let mut engine = Engine::new(model(name, &shape, Precision::Bfloat16), 2).unwrap();
        let found =
            compare(name, &shape, &mut |source, inputs| engine_logits(&mut engine, source, inputs)).found;
        let found = Compared { exact: rounded.found, found };
        let (difference, largest) = found.print(&format!("{name}, engine in bfloat16 against that"));
        assert!(difference <= 1e-2 * largest, "{name}: {difference} of {largest}");
    }
}

/// The golden models are small and wild: `transformers` itself is off by 0.4 and 0.8 in bfloat16.
#[test]
fn logits_in_integers_are_close() {
    for (name, shape) in cases() {
        for precision in [Precision::Int8, Precision::Int8Wide] {
            let mut engine = Engine::new(model(name, &shape, precision), 2).unwrap();
            let found =
                compare(name, &shape, &mut |source, inputs| engine_logits(&mut engine, source, inputs));
            let (difference, largest) = found.print(&format!("{name}, {precision:?}"));
            assert!(difference <= 0.4 * largest, "{name}: {difference} of {largest}");
        }
    }
}

/// A larger random model: how often integers choose the token that the exact model chooses.
#[test]
fn integers_choose_as_the_exact_model_does() {
    let shape = common::mid();
    let tensors = |name: &str| common::values(&shape, name);
    let mut generator = common::Generator(3);
    let rows: Vec<(Vec<u32>, Vec<u32>)> =
        (0..3).map(|_| (generator.ids(24, shape.vocab_size), generator.ids(8, shape.vocab_size))).collect();
    let exact = Reference { shape: &shape, tensors: &tensors, round: |value| value };
    let exact: Vec<Vec<f64>> =
        rows.iter().flat_map(|(source, inputs)| exact.logits(source, inputs)).collect();
    for (precision, limit) in
        [(Precision::Int8, 0.1), (Precision::Int8Wide, 0.1), (Precision::Bfloat16, 0.01)]
    {
        let mut engine = Engine::new(common::random(&shape, &Precisions::all(precision)), 2).unwrap();
        let found =
            rows.iter().flat_map(|(source, inputs)| engine_logits(&mut engine, source, inputs)).collect();
        let (difference, largest) =
            Compared { exact: exact.clone(), found }.print(&format!("random, {precision:?}"));
        assert!(difference <= limit * largest, "{precision:?}: {difference} of {largest}");
    }
}

#[test]
fn candidate_scores_are_those_of_transformers() {
    for (name, shape) in [("v1_0", v1_0()), ("v1_1", v1_1())] {
        let mut engine = Engine::new(model(name, &shape, Precision::Bfloat16), 2).unwrap();
        let expected = golden(name, "expected.safetensors");
        let candidates: Vec<Vec<u32>> = expected
            .rows("candidates")
            .into_iter()
            .map(|row| row.into_iter().filter(|id| *id >= 0.0).map(|id| id as u32).collect())
            .collect();
        let tree = LabelTree::new(&candidates.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        for (source, exact) in sources(name).iter().zip(expected.rows("candidate_scores")) {
            let encoded = encode(&mut engine, &[source]);
            let scores = engine.score(&encoded[0], &tree).unwrap();
            for (found, exact) in scores.iter().zip(exact) {
                assert!((found - exact).abs() <= 0.02 * exact.abs().max(1.0), "{name}: {found} {exact}");
            }
        }
    }
}
