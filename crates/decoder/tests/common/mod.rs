//! Models for tests: random ones, and those of the golden checkpoints.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod reference;

use decoder::{Activation, Encoded, Engine, Feed, Model, Precision, Precisions, Shape, Slots, Want};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// splitmix64.
pub(crate) struct Generator(pub(crate) u64);

impl Generator {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    /// About normal: the sum of four even numbers.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum();
        (sum - 2.0) * 3.0_f32.sqrt()
    }

    pub(crate) fn ids(&mut self, length: usize, vocabulary: usize) -> Vec<u32> {
        (0..length).map(|_| 2 + self.below(vocabulary - 2) as u32).collect()
    }
}

pub(crate) fn tiny() -> Shape {
    Shape {
        d_model: 64,
        d_kv: 16,
        d_ff: 128,
        num_layers: 2,
        num_decoder_layers: 2,
        num_heads: 4,
        vocab_size: 600,
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

pub(crate) fn mid() -> Shape {
    Shape {
        d_model: 192,
        d_kv: 32,
        d_ff: 512,
        num_layers: 3,
        num_decoder_layers: 3,
        num_heads: 6,
        vocab_size: 2003,
        ..tiny()
    }
}

/// Nothing of it fills a tile.
pub(crate) fn odd() -> Shape {
    Shape {
        d_model: 72,
        d_kv: 20,
        d_ff: 100,
        num_layers: 1,
        num_decoder_layers: 2,
        num_heads: 3,
        vocab_size: 517,
        activation: Activation::Relu,
        gated: false,
        own_head: false,
        scale_decoder_outputs: true,
        own_decoder_embedding: true,
        ..tiny()
    }
}

/// How many values a tensor has, and their standard deviation.
fn tensor(shape: &Shape, name: &str) -> Option<(usize, f32)> {
    let (model, inner) = (shape.d_model, shape.num_heads * shape.d_kv);
    let root = |width: usize| 1.0 / (width as f32).sqrt();
    let last = name.strip_suffix(".weight")?.rsplit('.').next()?;
    Some(match last {
        "shared" | "embed_tokens" => (shape.vocab_size * model, 1.0),
        "lm_head" => (shape.vocab_size * model, root(model)),
        "relative_attention_bias" => (shape.relative_attention_num_buckets * shape.num_heads, 1.0),
        "layer_norm" | "final_layer_norm" => (model, 0.0),
        "q" => (inner * model, root(model * shape.d_kv)),
        "k" | "v" => (inner * model, root(model)),
        "o" => (model * inner, root(inner)),
        "wi" | "wi_0" | "wi_1" => (shape.d_ff * model, root(model)),
        "wo" => (model * shape.d_ff, root(shape.d_ff)),
        _ => return None,
    })
}

/// The values of a tensor of a random model.
pub(crate) fn values(shape: &Shape, name: &str) -> Option<Vec<f32>> {
    let (count, deviation) = tensor(shape, name)?;
    let seed = name.bytes().fold(17_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut generator = Generator(seed);
    let value =
        |_| if deviation == 0.0 { 1.0 + 0.1 * generator.normal() } else { deviation * generator.normal() };
    Some((0..count).map(value).collect())
}

pub(crate) fn random(shape: &Shape, precisions: &Precisions) -> Arc<Model> {
    Arc::new(Model::pack(shape, &|name| values(shape, name), precisions).unwrap())
}

/// Precisions in which every form occurs.
pub(crate) fn mixed() -> Precisions {
    Precisions {
        attention_output: Precision::Int8Wide,
        feed_forward_output: Precision::Bfloat16,
        ..Precisions::default()
    }
}

pub(crate) fn encode(engine: &mut Engine, rows: &[&[u32]]) -> Vec<Encoded> {
    engine.encode(rows).unwrap().into_iter().map(Result::unwrap).collect()
}

/// Logits after each of `tokens`, fed one by one.
pub(crate) fn logits(engine: &mut Engine, encoded: &Encoded, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut slots = Slots::new(engine.model(), 1, tokens.len()).unwrap();
    let slot = slots.join(encoded, tokens.len()).unwrap();
    let step = |token: &u32| {
        let feed = Feed { slot, tokens: std::slice::from_ref(token), want: Want::Logits };
        match engine.step(&mut slots, &[feed]).unwrap().pop() {
            Some(decoder::Answer::Logits(logits)) => logits,
            other => panic!("{other:?}"),
        }
    };
    tokens.iter().map(step).collect()
}

/// A safetensors file's tensors as float64, with their shapes.
pub(crate) struct Tensors(HashMap<String, (Vec<usize>, Vec<f64>)>);

impl Tensors {
    pub(crate) fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header = std::str::from_utf8(header).unwrap();
        let mut tensors = HashMap::new();
        for entry in header.split("\"dtype\":\"").collect::<Vec<_>>().windows(2) {
            let name = entry[0].trim_end_matches(":{").trim_end_matches('"').rsplit('"').next().unwrap();
            let kind = entry[1].split('"').next().unwrap();
            let list = |field: &str| -> Vec<usize> {
                let start = entry[1].split(field).nth(1).unwrap().split('[').nth(1).unwrap();
                let numbers = start.split(']').next().unwrap().split(',');
                numbers.filter(|number| !number.is_empty()).map(|number| number.parse().unwrap()).collect()
            };
            let offsets = list("data_offsets");
            let data = &data[offsets[0]..offsets[1]];
            let values = match kind {
                "F32" => data
                    .chunks(4)
                    .map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap())))
                    .collect(),
                "I64" => {
                    data.chunks(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()) as f64).collect()
                }
                _ => Vec::new(),
            };
            tensors.insert(name.to_owned(), (list("shape"), values));
        }
        Self(tensors)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.0.get(name)?.1.iter().map(|value| *value as f32).collect())
    }

    /// Rows of a matrix.
    pub(crate) fn rows(&self, name: &str) -> Vec<Vec<f64>> {
        let (shape, values) = &self.0[name];
        let width: usize = shape[1..].iter().product();
        values.chunks(width).map(<[f64]>::to_vec).collect()
    }
}

pub(crate) fn golden(name: &str, file: &str) -> Tensors {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../t5/tests/golden");
    Tensors::open(&folder.join(name).join(file))
}
