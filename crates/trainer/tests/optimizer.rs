//! AdamW against torch.optim.AdamW: three small tensors, four steps, clipped gradients, falling learning rates.
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

use t5::{Config, Model, Size};
use tch::{Device, Tensor};
use trainer::optimizer::AdamW;

const EMBEDDING: &str = "shared.weight";
const NORM: &str = "encoder.final_layer_norm.weight";
const BIAS: &str = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
const START: [(&str, &[f32]); 3] =
    [(EMBEDDING, &[0.5, -1.0, 2.0, 0.25, -0.75, 1.5]), (NORM, &[1.0, 0.8]), (BIAS, &[0.3, -0.6, 0.9, -1.2])];
const GRADIENTS: [(&str, &[f32]); 3] =
    [(EMBEDDING, &[1.0, -2.0, 0.5, 0.0, 3.0, -0.1]), (NORM, &[0.2, -0.4]), (BIAS, &[1e-3, -2.0, 0.0, 5.0])];
/// The gradients of each step are the ones above, times this.
const FACTORS: [f64; 4] = [1.0, -0.5, 2.0, 0.25];
const RATE: f64 = 0.01;

fn model() -> Model {
    let config = Config {
        d_model: 2,
        num_heads: 1,
        num_layers: 1,
        num_decoder_layers: 1,
        relative_attention_num_buckets: 4,
        ..Size::Tiny.config(3)
    };
    let mut model = Model::from_scratch(config, 0, Device::Cpu).unwrap();
    for (name, values) in START {
        let shape = weight(&model, name).size();
        model.copy_from(&[(name.to_owned(), Tensor::from_slice(values).reshape(shape))]).unwrap();
    }
    model
}

/// An optimiser over a model's flat weights.
fn optimizer(model: &mut Model, from_scratch: bool) -> AdamW {
    let (flat, _) = model.flatten(t5::Compute::Float32).unwrap();
    AdamW::new(flat, 0.1, from_scratch)
}

fn weight(model: &Model, name: &str) -> Tensor {
    model.parameters().iter().find(|(known, _)| known == name).unwrap().1.shallow_clone()
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    Vec::try_from(weight(model, name).detach().flatten(0, -1)).unwrap()
}

fn step(model: &Model, optimizer: &mut AdamW, number: usize) {
    optimizer.begin().unwrap();
    for (name, gradient) in GRADIENTS {
        let mut place = weight(model, name).grad();
        place.copy_(&(Tensor::from_slice(gradient).reshape(place.size()) * FACTORS[number]));
    }
    let norm = optimizer.gradient_norm().unwrap();
    let squares: f64 =
        GRADIENTS.iter().flat_map(|(_, values)| *values).map(|value| f64::from(*value).powi(2)).sum();
    assert!((norm - squares.sqrt() * FACTORS[number].abs()).abs() < 1e-5, "{norm}");
    optimizer.step(RATE / (number + 1) as f64, (1.0 / (norm + 1e-6)).min(1.0)).unwrap();
}

fn close(model: &Model, name: &str, expected: &[f32]) {
    for (found, expected) in values(model, name).iter().zip(expected) {
        assert!((found - expected).abs() < 2e-7, "{name}: {found}, and torch {expected}");
    }
}

/// What torch 2.11 has after the four steps: weight decay 0.1 on the embedding only, `clip_grad_norm_` to 1.
const EMBEDDING_AFTER: [f32; 6] =
    [0.486_791_55, -0.985_750_6, 1.983_668_8, 0.249_479_53, -0.760_606_2, 1.509_044_8];
const NORM_AFTER: [f32; 2] = [0.987_821_5, 0.812_178_5];
const BIAS_AFTER: [f32; 4] = [0.287_822_37, -0.587_821_54, 0.9, -1.212_178_5];
/// With ten times the learning rate on the bias.
const BIAS_AFTER_SCRATCH: [f32; 4] = [0.178_223_16, -0.478_215_16, 0.9, -1.321_785];

#[test]
fn four_steps_are_those_of_torch() {
    for (from_scratch, bias) in [(false, BIAS_AFTER), (true, BIAS_AFTER_SCRATCH)] {
        let mut model = model();
        let mut optimizer = optimizer(&mut model, from_scratch);
        let before = values(&model, "lm_head.weight");
        for number in 0..FACTORS.len() {
            step(&model, &mut optimizer, number);
        }
        close(&model, EMBEDDING, &EMBEDDING_AFTER);
        close(&model, NORM, &NORM_AFTER);
        close(&model, BIAS, &bias);
        // A gradient of nothing: weights only decay.
        let kept: f64 = (1..=FACTORS.len()).map(|number| 1.0 - 0.1 * RATE / number as f64).product();
        let decayed: Vec<f32> = before.iter().map(|value| (f64::from(*value) * kept) as f32).collect();
        close(&model, "lm_head.weight", &decayed);
    }
}

#[test]
fn moments_that_were_written_go_on_to_the_same_bits() {
    let mut whole = model();
    let mut first = optimizer(&mut whole, false);
    for number in 0..FACTORS.len() {
        step(&whole, &mut first, number);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moments.safetensors");
    let mut broken = model();
    let mut second = optimizer(&mut broken, false);
    step(&broken, &mut second, 0);
    step(&broken, &mut second, 1);
    second.save(&path).unwrap();
    let mut resumed = optimizer(&mut broken, false);
    resumed.load(&path, 2).unwrap();
    step(&broken, &mut resumed, 2);
    step(&broken, &mut resumed, 3);
    for (name, _) in START {
        assert_eq!(values(&broken, name), values(&whole, name), "{name}");
    }
    // Moments of another model.
    let mut other = common::student(
        &common::tokenizer(
            &common::spec("equation", domain::objective::Objective::Standard, |_| {}),
            &common::problems(),
        ),
        1,
    );
    let said = optimizer(&mut other, false).load(&path, 2).unwrap_err().to_string();
    assert!(said.contains("moments.safetensors: has no moments `first."), "{said}");
    let said = optimizer(&mut other, false).load(&folder.path().join("none"), 2).unwrap_err().to_string();
    assert!(said.contains("none: No such file"), "{said}");
}
