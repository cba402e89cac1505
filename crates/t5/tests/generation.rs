//! What must change nothing: company, padding, the same seed; and what chance does.
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

use common::{Golden, chance, close, device, difference, padded, pass, rows, tolerance};
use t5::{Batch, Compute, Config, ForwardOptions, GenerateOptions, Model, Size, Step, Strategy};
use tch::{Kind, Tensor};

const GREEDY: GenerateOptions =
    GenerateOptions { tokens_max: 12, strategy: Strategy::Greedy, compute: Compute::Float32 };

fn sampled(temperature: f64, top_k: usize, top_p: f64, seed: u64) -> GenerateOptions {
    GenerateOptions { strategy: Strategy::Sample { temperature, top_k, top_p, seed }, ..GREEDY }
}

fn texts(golden: &Golden, sources: &[Vec<i64>], options: &GenerateOptions) -> Vec<Vec<i64>> {
    let (ids, mask) = padded(sources);
    t5::generate(&golden.model, &ids, &mask, options).unwrap()
}

/// The golden sources without their padding.
fn sources(golden: &Golden) -> Vec<Vec<i64>> {
    let lengths = golden.lengths();
    rows(&golden.ids())
        .into_iter()
        .zip(lengths)
        .map(|(row, length)| row[..length as usize].to_vec())
        .collect()
}

#[test]
fn a_row_alone_is_what_it_is_among_others() {
    for name in ["v1_0", "v1_1"] {
        let golden = Golden::open(name);
        let batch = golden.batch();
        let together = golden.model.forward(&batch, &pass(Compute::Float32)).unwrap();
        let sources = sources(&golden);
        for (row, source) in (0_i64..).zip(&sources) {
            let (input_ids, input_mask) = padded(std::slice::from_ref(source));
            let alone = Batch { input_ids, input_mask, labels: batch.labels.narrow(0, row, 1) };
            let alone = golden.model.forward(&alone, &pass(Compute::Float32)).unwrap();
            close(&format!("{name} row {row}"), &alone, &together.narrow(0, row, 1), tolerance() / 10.0);
            let text = texts(&golden, std::slice::from_ref(source), &GREEDY);
            assert_eq!(text[0], golden.texts("greedy")[row as usize], "{name} row {row}");
        }
    }
}

#[test]
fn padding_on_either_side_changes_nothing() {
    for name in ["v1_0", "v1_1"] {
        let golden = Golden::open(name);
        let batch = golden.batch();
        let plain = golden.model.forward(&batch, &pass(Compute::Float32)).unwrap();
        // Whatever stands in the padding: it is not read. Distances are relative, so that the left side is as good.
        let filling = Tensor::full([3, 11], 7, (Kind::Int64, tch::Device::Cpu));
        let hidden = Tensor::zeros([3, 11], (Kind::Bool, tch::Device::Cpu));
        for left in [true, false] {
            let beside = |inner: &Tensor, outer: &Tensor| {
                Tensor::cat(&if left { [outer, inner] } else { [inner, outer] }, 1)
            };
            let (ids, mask) = (beside(&batch.input_ids, &filling), beside(&batch.input_mask, &hidden));
            let options = GREEDY;
            let text = t5::generate(&golden.model, &ids, &mask, &options).unwrap();
            assert_eq!(text, golden.texts("greedy"), "{name}");
            let labels = batch.labels.shallow_clone();
            let more = golden
                .model
                .forward(&Batch { input_ids: ids, input_mask: mask, labels }, &pass(Compute::Float32));
            close(&format!("{name} padded"), &more.unwrap(), &plain, tolerance() / 10.0);
        }
        // Columns behind the labels change neither the logits before them nor the loss.
        let ignored = Tensor::full([3, 5], t5::IGNORED, (Kind::Int64, tch::Device::Cpu));
        let labels = Tensor::cat(&[&batch.labels, &ignored], 1);
        let wide = Batch { labels: labels.shallow_clone(), ..golden.batch() };
        let wide = golden.model.forward(&wide, &pass(Compute::Float32)).unwrap();
        close(&format!("{name} wide"), &wide.narrow(1, 0, 12), &plain, tolerance() / 10.0);
        let (loss, expected) = (t5::mean_loss(&wide, &labels), t5::mean_loss(&plain, &batch.labels));
        close(&format!("{name} wide loss"), &loss, &expected, tolerance() / 10.0);
    }
}

#[test]
fn dropout_is_the_same_for_the_same_seed_and_none_at_zero() {
    let _turn = chance();
    for compute in [Compute::Float32, Compute::BFloat16] {
        let golden = Golden::open("v1_1");
        let batch = golden.batch();
        let run = |seed: i64, dropout: f64| {
            tch::manual_seed(seed);
            golden.model.forward(&batch, &ForwardOptions { compute, dropout }).unwrap()
        };
        assert_eq!(difference(&run(1, 0.0), &run(2, 0.0)), 0.0);
        assert_eq!(difference(&run(1, 0.3), &run(1, 0.3)), 0.0);
        assert!(difference(&run(1, 0.3), &run(2, 0.3)) > 0.1);
        assert!(difference(&run(1, 0.3), &run(1, 0.0)) > 0.1);
    }
}

#[test]
fn fresh_weights_are_the_same_for_the_same_seed() {
    let _turn = chance();
    let fresh = |seed: i64| Model::from_scratch(Size::Tiny.config(64), seed, device()).unwrap();
    let (first, again, other) = (fresh(5), fresh(5), fresh(6));
    for ((name, left), (_, right)) in first.parameters().iter().zip(again.parameters()) {
        assert!(left.equal(right), "{name}");
    }
    let head = |model: &Model| {
        model.parameters().iter().find(|(name, _)| name == "lm_head.weight").unwrap().1.copy()
    };
    assert!(difference(&head(&first), &head(&other)) > 0.1);
}

/// Raffel et al. scale by width instead of dividing scores by sqrt(d_kv): the standard deviations say so.
#[test]
fn fresh_weights_have_the_deviations_of_mesh_tensorflow() {
    let _turn = chance();
    let config = Config { num_layers: 1, num_decoder_layers: 1, ..Size::Small.config(512) };
    let model = Model::from_scratch(config, 1, device()).unwrap();
    let (width, inner) = (512.0_f64, 384.0_f64);
    for (name, std) in [
        ("shared.weight", 1.0),
        ("lm_head.weight", width.powf(-0.5)),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", (width * 64.0).powf(-0.5)),
        ("encoder.block.0.layer.0.SelfAttention.k.weight", width.powf(-0.5)),
        ("decoder.block.0.layer.1.EncDecAttention.v.weight", width.powf(-0.5)),
        ("decoder.block.0.layer.1.EncDecAttention.o.weight", inner.powf(-0.5)),
        ("decoder.block.0.layer.2.DenseReluDense.wi_1.weight", width.powf(-0.5)),
        ("decoder.block.0.layer.2.DenseReluDense.wo.weight", 1024.0_f64.powf(-0.5)),
    ] {
        let weight = &model.parameters().iter().find(|(known, _)| known == name).unwrap().1;
        let found = weight.std(true).double_value(&[]);
        assert!((found / std - 1.0).abs() < 0.02, "{name}: {found}, not {std}");
    }
}

#[test]
fn chance_is_the_same_for_the_same_seed_and_in_any_company() {
    let golden = Golden::open("v1_1");
    let sources = sources(&golden);
    let options = sampled(1.5, 0, 1.0, 11);
    let together = texts(&golden, &sources, &options);
    assert_eq!(together, texts(&golden, &sources, &options));
    assert_ne!(together, texts(&golden, &sources, &sampled(1.5, 0, 1.0, 12)));
    // A row keeps its text when the others are absent, or others.
    assert_eq!(texts(&golden, &sources[..1], &options)[0], together[0]);
    let company = [sources[2].clone(), sources[1].clone(), sources[0].clone(), sources[0].clone()];
    assert_eq!(texts(&golden, &company, &options)[1], together[1]);
    // Two rows that read the same draw each for itself, and neither repeats the other a token later.
    let twice = texts(&golden, &[sources[2].clone(), sources[2].clone()], &sampled(3.0, 0, 1.0, 0));
    assert_ne!(twice[0], twice[1]);
}

#[test]
fn one_token_to_choose_from_is_greedy() {
    for name in ["v1_0", "v1_1"] {
        let golden = Golden::open(name);
        for options in [sampled(1.0, 1, 1.0, 3), sampled(1.0, 0, 1e-9, 3), sampled(0.0, 0, 1.0, 3)] {
            let text = t5::generate(&golden.model, &golden.ids(), &golden.mask(), &options).unwrap();
            assert_eq!(text, golden.texts("greedy"), "{name} {options:?}");
        }
    }
}

/// First tokens of many rows that read the same, against the distribution they are drawn from.
#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    const DRAWS: usize = 1500;
    let golden = Golden::open("v1_1");
    let source = sources(&golden).remove(2);
    let weights = golden.model.weights(Compute::Float32).unwrap();
    let (ids, mask) = padded(std::slice::from_ref(&source));
    let encoded = golden.model.encode(&weights, &ids, &mask).unwrap();
    let mut state = golden.model.start(&weights, &encoded).unwrap();
    let logits = golden.model.step(&weights, &mut state, &[0]).unwrap().get(0);
    let check = |temperature: f64, top_k: usize, top_p: f64| {
        let mass: Vec<f64> = Vec::try_from((&logits / temperature).softmax(-1, Kind::Double)).unwrap();
        let mut ranked: Vec<usize> = (0..mass.len()).collect();
        ranked.sort_by(|left, right| mass[*right].total_cmp(&mass[*left]));
        // What is kept: the first `top_k`, and of their mass the first ones that reach `top_p`.
        ranked.truncate(if top_k == 0 { mass.len() } else { top_k });
        let total: f64 = ranked.iter().map(|id| mass[*id]).sum();
        let mut before = 0.0;
        ranked.retain(|id| {
            let keep = before < top_p * total;
            before += mass[*id];
            keep
        });
        let total: f64 = ranked.iter().map(|id| mass[*id]).sum();
        let options = GenerateOptions { tokens_max: 1, ..sampled(temperature, top_k, top_p, 21) };
        let mut counts = vec![0_usize; mass.len()];
        for text in texts(&golden, &vec![source.clone(); DRAWS], &options) {
            // An empty text is the end token.
            counts[text.first().map_or(1, |token| *token as usize)] += 1;
        }
        for (id, count) in counts.iter().enumerate() {
            let expected = if ranked.contains(&id) { mass[id] / total } else { 0.0 };
            let found = *count as f64 / DRAWS as f64;
            let deviation = (expected * (1.0 - expected) / DRAWS as f64).sqrt();
            assert!(
                (found - expected).abs() <= 4.5 * deviation,
                "{id}: {found} of the draws, not {expected}"
            );
        }
    };
    check(1.0, 0, 1.0);
    check(2.0, 0, 1.0);
    check(2.0, 5, 1.0);
    check(2.0, 0, 0.7);
    check(2.0, 8, 0.6);
}

#[test]
fn a_listener_ends_its_own_row_only() {
    let golden = Golden::open("v1_0");
    let weights = golden.model.weights(Compute::Float32).unwrap();
    let mut heard = vec![Vec::new(); 3];
    t5::generate_with(&golden.model, &weights, &golden.ids(), &golden.mask(), &GREEDY, &mut |row, step| {
        match step {
            Step::Token { id, log_probability } => {
                assert!(log_probability < 0.0);
                heard[row].push(id);
            }
            Step::End { .. } => {}
            Step::NotFinite => panic!("row {row} is not finite"),
        }
        if row == 1 && heard[row].len() == 2 {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    })
    .unwrap();
    let mut expected = golden.texts("greedy");
    assert!(expected[1].len() > 2);
    expected[1].truncate(2);
    assert_eq!(heard, expected);
}

#[test]
fn wider_beams_find_likelier_texts() {
    let golden = Golden::open("v1_1");
    let beam =
        |width: usize| GenerateOptions { strategy: Strategy::Beam { width, length_penalty: 0.0 }, ..GREEDY };
    let weights = golden.model.weights(Compute::Float32).unwrap();
    let encoded = golden.model.encode(&weights, &golden.ids(), &golden.mask()).unwrap();
    let likelihoods = |options: &GenerateOptions| -> Vec<f64> {
        let texts = t5::generate(&golden.model, &golden.ids(), &golden.mask(), options).unwrap();
        (0_i64..)
            .zip(texts)
            .map(|(row, text)| {
                let cut = text.len() == options.tokens_max;
                let score = t5::score(&golden.model, &weights, &encoded, row, &[text]).unwrap()[0];
                // A text that was cut is not ended: its end token is not part of it, and its score no comparison.
                if cut { f64::NEG_INFINITY } else { score }
            })
            .collect()
    };
    let narrow = likelihoods(&beam(1));
    let wide = likelihoods(&beam(8));
    assert!(wide.iter().any(|score| score.is_finite()));
    for (narrow, wide) in narrow.iter().zip(&wide) {
        assert!(wide >= narrow, "{wide} {narrow}");
    }
    assert_eq!(
        t5::generate(&golden.model, &golden.ids(), &golden.mask(), &beam(1)).unwrap(),
        golden.texts("greedy"),
        "a beam of one is greedy"
    );
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let golden = Golden::open("v1_0");
    let ids = |rows: &[i64], shape: [i64; 2]| Tensor::from_slice(rows).reshape(shape);
    let seen = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Bool, tch::Device::Cpu));
    let check = |ids: Tensor, mask: Tensor, labels: Tensor, needle: &str| {
        let said = golden
            .model
            .forward(&Batch { input_ids: ids, input_mask: mask, labels }, &pass(Compute::Float32))
            .unwrap_err()
            .to_string();
        assert!(said.contains(needle), "{said}");
    };
    let good = || ids(&[5, 1], [1, 2]);
    let tokenizer = "does the tokenizer belong to this model?";
    check(ids(&[64, 1], [1, 2]), seen([1, 2]), good(), "input ids: 64 lies outside the vocabulary of 64");
    check(ids(&[-1, 1], [1, 2]), seen([1, 2]), good(), tokenizer);
    check(ids(&[-100, 1], [1, 2]), seen([1, 2]), good(), "input ids: -100");
    check(good(), seen([1, 2]), ids(&[64, 1], [1, 2]), "labels: 64 lies outside");
    // Hidden from a look at the lowest id by a label that is ignored.
    check(good(), seen([1, 2]), ids(&[-100, -5], [1, 2]), "labels: -5 lies outside");
    check(good(), seen([1, 3]), good(), "must both be [batch, source], and not empty");
    check(ids(&[5, 1], [2, 1]), seen([2, 1]), good(), "a row for every row of the ids [2, 1]");
    check(good(), seen([1, 2]), ids(&[], [1, 0]), "labels [1, 0]");
    check(ids(&[], [0, 2]), seen([0, 2]), good(), "[0, 2]");
    check(good().to_kind(Kind::Float), seen([1, 2]), good(), "input ids are Float: they must be int64");
    check(good(), seen([1, 2]), good().to_kind(Kind::Float), "labels are Float: they must be int64");

    let weights = golden.model.weights(Compute::Float32).unwrap();
    let encoded = golden.model.encode(&weights, &good(), &seen([1, 2])).unwrap();
    let failed = |result: t5::Result<Vec<f64>>, needle: &str| {
        let said = result.unwrap_err().to_string();
        assert!(said.contains(needle), "{said}");
    };
    failed(
        t5::score(&golden.model, &weights, &encoded, 0, &[vec![70]]),
        "token 70 lies outside the vocabulary",
    );
    failed(t5::score(&golden.model, &weights, &encoded, 1, &[vec![7]]), "row 1 of 1");
    assert_eq!(t5::score(&golden.model, &weights, &encoded, 0, &[]).unwrap(), [0.0; 0]);
    assert_eq!(t5::score(&golden.model, &weights, &encoded, 0, &[vec![]]).unwrap().len(), 1);
    let mut state = golden.model.start(&weights, &encoded).unwrap();
    let said = golden.model.step(&weights, &mut state, &[0, 0]).unwrap_err().to_string();
    assert_eq!(said, "2 tokens for 1 rows");
    let said = golden.model.step(&weights, &mut state, &[64]).unwrap_err().to_string();
    assert!(said.contains("a token: 64 lies outside"), "{said}");
    let listening = GenerateOptions { strategy: Strategy::Beam { width: 2, length_penalty: 1.0 }, ..GREEDY };
    let said = t5::generate_with(&golden.model, &weights, &good(), &seen([1, 2]), &listening, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    });
    assert!(said.unwrap_err().to_string().contains("beam"));
    let said =
        t5::generate(&golden.model, &ids(&[], [0, 2]), &seen([0, 2]), &GREEDY).unwrap_err().to_string();
    assert!(said.contains("not empty"), "{said}");
}

#[test]
fn a_row_of_padding_alone_is_read_as_nothing() {
    let golden = Golden::open("v1_1");
    let (ids, _) = padded(&[vec![5, 6, 1]]);
    let mask = Tensor::zeros([1, 3], (Kind::Bool, tch::Device::Cpu));
    let labels = Tensor::from_slice(&[7_i64, 1]).reshape([1, 2]);
    let logits = golden
        .model
        .forward(&Batch { input_ids: ids, input_mask: mask, labels }, &pass(Compute::Float32))
        .unwrap();
    assert!(bool::try_from(logits.isfinite().all()).unwrap());
}
