//! The model against `transformers`, on the golden files that `scripts/golden.sh` writes.
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

use common::{Golden, close, device, difference, pass, rows, tolerance};
use kernels::Draw;
use std::collections::BTreeSet;
use t5::{Compute, GenerateOptions, IGNORED, Pair, Strategy};
use tch::{Kind, Tensor};

const V1: [&str; 2] = ["v1_0", "v1_1"];
const TOKENS_MAX: usize = 12;

#[test]
fn logits_and_loss_are_those_of_transformers() {
    for name in ["v1_0", "v1_1", "bfloat16"] {
        let golden = Golden::open(name);
        let batch = golden.batch();
        let logits = golden.model.forward(&batch, &pass(Compute::Float32)).unwrap();
        close(&format!("{name} logits"), &logits, &golden.tensor("logits"), tolerance());
        let loss = t5::mean_loss(&logits, &batch.labels).reshape([1]);
        close(&format!("{name} loss"), &loss, &golden.tensor("loss"), tolerance());
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    for name in ["v1_0", "v1_1", "bfloat16"] {
        let mut golden = Golden::open(name);
        golden.model.set_trainable(true);
        let batch = golden.batch();
        let logits = golden.model.forward(&batch, &pass(Compute::Float32)).unwrap();
        t5::mean_loss(&logits, &batch.labels).backward();
        let (mut largest, mut biases) = (0.0_f64, 0);
        for (parameter, tensor) in golden.model.parameters() {
            let (found, expected) = (tensor.grad(), golden.tensor(&format!("gradient.{parameter}")));
            // A gradient that is nowhere far from zero would pass whatever we computed.
            let size = expected.abs().max().double_value(&[]);
            assert!(size > 10.0 * tolerance(), "{name} {parameter}: its gradient is only {size:e}");
            let apart = difference(&found, &expected);
            assert!(apart <= tolerance(), "{name} {parameter}: largest difference {apart:e}");
            largest = largest.max(apart);
            biases += usize::from(parameter.contains("relative_attention_bias"));
        }
        println!("{name} gradients: largest difference {largest:.1e}");
        assert_eq!(biases, 2, "the bias of each stack");
    }
}

/// What training computes: rows end to end, by kernels, over flat weights.
#[test]
fn losses_and_gradients_of_rows_without_padding_are_those_of_transformers() {
    for name in ["v1_0", "v1_1", "bfloat16"] {
        let mut golden = Golden::open(name);
        let (ids, labels) = (rows(&golden.ids()), rows(&golden.tensor("labels")));
        let sources: Vec<Vec<i64>> =
            ids.iter().zip(golden.lengths()).map(|(row, length)| row[..length as usize].to_vec()).collect();
        // One token of a target is not counted, and is read as padding.
        let padding = golden.model.config().pad_token_id;
        let (mut targets, mut counted) = (Vec::new(), Vec::new());
        for row in &labels {
            let length = 1 + row.iter().rposition(|id| *id != IGNORED).unwrap();
            counted.extend(row[..length].iter().map(|id| f32::from(*id != IGNORED)));
            targets.push(
                row[..length].iter().map(|id| if *id == IGNORED { padding } else { *id }).collect::<Vec<_>>(),
            );
        }
        let lengths: BTreeSet<usize> = sources.iter().map(Vec::len).collect();
        assert!(lengths.len() > 1, "rows of one length show nothing");
        let pairs: Vec<Pair<'_>> = sources
            .iter()
            .zip(&targets)
            .map(|(source, target)| (source.as_slice(), target.as_slice()))
            .collect();
        let (flat, weights) = golden.model.flatten(Compute::Float32).unwrap();
        let draw = Draw { key: 0, place: 0, part: 0 };
        let losses = golden.model.losses(&weights, &pairs, 0.0, draw).unwrap();
        assert_eq!(losses.size(), [targets.iter().map(Vec::len).sum::<usize>() as i64]);
        let counted = Tensor::from_slice(&counted).to_device(device());
        let loss = losses.dot(&counted) / counted.sum(Kind::Float);
        close(&format!("{name} loss"), &loss.reshape([1]), &golden.tensor("loss"), tolerance());
        loss.backward();
        for span in flat.spans() {
            let (found, expected) =
                (span.of(flat.gradients()), golden.tensor(&format!("gradient.{}", span.name)));
            let apart = difference(&found, &expected);
            assert!(apart <= tolerance(), "{name} {}: largest difference {apart:e}", span.name);
        }
    }
}

#[test]
fn rows_that_cannot_be_trained_on_are_refused() {
    let mut golden = Golden::open("v1_1");
    let (_, weights) = golden.model.flatten(Compute::Float32).unwrap();
    let outside = golden.model.config().vocab_size;
    let cases: [(&[Pair<'_>], &str); 5] = [
        (&[], "no source or no target"),
        (&[(&[5, 1], &[])], "no source or no target"),
        (&[(&[], &[5, 1])], "no source or no target"),
        (&[(&[5, outside], &[1])], "input ids"),
        (&[(&[5, 1], &[1]), (&[5, 1], &[-100, 1])], "labels: -100"),
    ];
    for (rows, words) in cases {
        let draw = Draw { key: 0, place: 0, part: 0 };
        let said = golden.model.losses(&weights, rows, 0.0, draw).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }
}

/// bfloat16 keeps 8 bits. Our passes may stray from float32 by no more than those of `transformers` do (root of the mean
/// square), and half as much again where a row is unlucky; the loss by a fiftieth of itself.
#[test]
fn bfloat16_passes_stay_near_float32_ones() {
    for name in V1 {
        let mut golden = Golden::open(name);
        golden.model.set_trainable(true);
        let batch = golden.batch();
        let logits = golden.model.forward(&batch, &pass(Compute::BFloat16)).unwrap();
        let exact = golden.tensor("logits").to_device(device());
        let astray =
            |logits: &Tensor| (logits.detach() - &exact).square().mean(Kind::Double).sqrt().double_value(&[]);
        let (ours, theirs) = (astray(&logits), astray(&golden.tensor("logits_bfloat16").to_device(device())));
        println!("{name} bfloat16 logits astray: {ours:.1e}, those of transformers {theirs:.1e}");
        assert!(ours > 0.0 && ours <= 1.5 * theirs, "{name}: {ours:e}, and transformers {theirs:e}");
        let loss = t5::mean_loss(&logits, &batch.labels);
        let expected = golden.tensor("loss").double_value(&[0]);
        let apart = (loss.double_value(&[]) - expected).abs() / expected;
        println!("{name} bfloat16 loss: {apart:.1e} of itself");
        assert!(apart < 0.02, "{name}: loss {apart:e} of itself");
        // The gradients arrive at the float32 masters, and point where they should.
        loss.backward();
        let mut worst = 1.0_f64;
        for (parameter, tensor) in golden.model.parameters() {
            let (found, expected) =
                (tensor.grad(), golden.tensor(&format!("gradient.{parameter}")).to_device(device()));
            assert_eq!(found.kind(), Kind::Float);
            let along = found.flatten(0, -1).dot(&expected.flatten(0, -1)) / (found.norm() * expected.norm());
            let along = along.double_value(&[]);
            worst = worst.min(along);
            assert!(along > 0.9, "{name} {parameter}: cosine {along}");
        }
        println!("{name} bfloat16 gradients: least cosine {worst:.4}");
    }
}

#[test]
fn greedy_and_beam_texts_are_those_of_transformers() {
    for name in V1 {
        let golden = Golden::open(name);
        let beam = |width: usize, length_penalty: f64| Strategy::Beam { width, length_penalty };
        for (what, strategy) in
            [("greedy", Strategy::Greedy), ("beam", beam(3, 1.0)), ("beam_long", beam(2, 2.0))]
        {
            let options = GenerateOptions { tokens_max: TOKENS_MAX, strategy, compute: Compute::Float32 };
            let texts = t5::generate(&golden.model, &golden.ids(), &golden.mask(), &options).unwrap();
            assert_eq!(texts, golden.texts(what), "{name} {what}");
        }
    }
}

/// The ids of a candidate, without what fills its row.
fn candidates(golden: &Golden) -> Vec<Vec<i64>> {
    rows(&golden.tensor("candidates"))
        .into_iter()
        .map(|row| row.into_iter().take_while(|id| *id != IGNORED).collect())
        .collect()
}

#[test]
fn likelihoods_of_given_answers_are_those_of_transformers() {
    for name in V1 {
        let golden = Golden::open(name);
        let weights = golden.model.weights(Compute::Float32).unwrap();
        let encoded = golden.model.encode(&weights, &golden.ids(), &golden.mask()).unwrap();
        let candidates = candidates(&golden);
        let scores: Vec<f64> = (0..encoded.rows())
            .flat_map(|row| t5::score(&golden.model, &weights, &encoded, row, &candidates).unwrap())
            .collect();
        let expected = golden.tensor("candidate_scores");
        let scores = Tensor::from_slice(&scores).reshape(expected.size());
        // Sums over several tokens: each may be off.
        close(&format!("{name} likelihoods"), &scores, &expected, tolerance() * 4.0);
    }
}

#[test]
fn steps_with_remembered_keys_equal_the_pass_over_whole_targets() {
    for name in V1 {
        let golden = Golden::open(name);
        let batch = golden.batch();
        let whole = golden.model.forward(&batch, &pass(Compute::Float32)).unwrap();
        let weights = golden.model.weights(Compute::Float32).unwrap();
        let encoded = golden.model.encode(&weights, &batch.input_ids, &batch.input_mask).unwrap();
        let mut state = golden.model.start(&weights, &encoded).unwrap();
        let labels = rows(&batch.labels);
        let mut steps = Vec::new();
        for place in 0..labels[0].len() {
            // What the decoder reads: the labels one place to the right, padding (0) where they are ignored.
            let tokens: Vec<i64> =
                labels.iter().map(|row| if place == 0 { 0 } else { row[place - 1].max(0) }).collect();
            steps.push(golden.model.step(&weights, &mut state, &tokens).unwrap());
        }
        assert_eq!(state.position(), labels[0].len() as i64);
        // Sums of one position are made in another order than those of many. What that is worth depends on the
        // processor's kernels: 7e-7 to 2e-6 of the largest number were seen.
        let largest = whole.abs().max();
        println!("{name}: logits up to {:.1}", largest.double_value(&[]));
        close(&format!("{name} steps"), &(Tensor::stack(&steps, 1) / &largest), &(whole / &largest), 4e-6);
    }
}

#[test]
fn rows_that_leave_or_change_places_keep_what_they_remember() {
    let golden = Golden::open("v1_1");
    let weights = golden.model.weights(Compute::Float32).unwrap();
    let encoded = golden.model.encode(&weights, &golden.ids(), &golden.mask()).unwrap();
    let mut state = golden.model.start(&weights, &encoded).unwrap();
    let _ = golden.model.step(&weights, &mut state, &[0, 0, 0]).unwrap();
    let mut kept = golden.model.start(&weights, &encoded.select(&[2, 0, 2])).unwrap();
    let _ = golden.model.step(&weights, &mut kept, &[0, 0, 0]).unwrap();
    state.select(&[2, 0, 2]);
    let left = golden.model.step(&weights, &mut state, &[5, 6, 7]).unwrap();
    let right = golden.model.step(&weights, &mut kept, &[5, 6, 7]).unwrap();
    close("chosen rows", &left, &right, tolerance() / 10.0);
    assert!(difference(&left.get(0), &left.get(1)) > 0.1, "rows differ");
}
