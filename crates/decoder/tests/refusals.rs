//! What is wrong is refused with a message that names it, and nothing else happens.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may stop at what it does not expect"
)]

mod common;

use common::{encode, mixed, odd, random, tiny, values};
use decoder::{
    Answer, Encoded, Engine, Error, Feed, LabelTree, Model, Precision, Precisions, Shape, Slots, Tile, Want,
};
use std::sync::Arc;

#[test]
fn shapes_that_cannot_be_computed() {
    type Change = fn(&mut Shape);
    let cases: [(&str, Change); 14] = [
        ("d_model", |shape| shape.d_model = 0),
        ("d_model", |shape| shape.d_model = 1 << 20),
        ("d_kv", |shape| shape.d_kv = usize::MAX),
        ("d_ff", |shape| shape.d_ff = 70_000),
        ("num_heads", |shape| shape.num_heads = 1 << 23),
        ("num_layers", |shape| shape.num_layers = 0),
        ("num_decoder_layers", |shape| shape.num_decoder_layers = 4000),
        ("vocab_size", |shape| shape.vocab_size = 1 << 30),
        ("relative_attention_num_buckets", |shape| shape.relative_attention_num_buckets = 3),
        ("relative_attention_max_distance", |shape| shape.relative_attention_max_distance = 16),
        ("layer_norm_epsilon", |shape| shape.layer_norm_epsilon = f64::NAN),
        ("layer_norm_epsilon", |shape| shape.layer_norm_epsilon = -1.0),
        ("eos_token_id", |shape| shape.eos_token_id = 600),
        ("decoder_start_token_id", |shape| shape.decoder_start_token_id = u32::MAX),
    ];
    for (expected, change) in cases {
        let mut shape = tiny();
        change(&mut shape);
        match Model::pack(&shape, &|_| None, &Precisions::default()) {
            Err(Error::Shape { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn tensors_that_are_absent_misshapen_or_not_finite() {
    let shape = odd();
    let bad = "decoder.block.1.layer.1.EncDecAttention.k.weight";
    let with = |change: &dyn Fn(Vec<f32>) -> Option<Vec<f32>>| {
        let find = |name: &str| {
            values(&shape, name).and_then(|values| if name == bad { change(values) } else { Some(values) })
        };
        Model::pack(&shape, &find, &mixed()).unwrap_err()
    };
    assert_eq!(with(&|_| None), Error::MissingTensor(bad.to_owned()));
    assert_eq!(
        with(&|_| Some(vec![0.0])),
        Error::Misshapen { name: bad.to_owned(), found: 1, expected: 60 * 72 }
    );
    for value in [f32::NAN, f32::INFINITY, f32::MAX] {
        let spoil = |mut values: Vec<f32>| {
            values[77] = value;
            Some(values)
        };
        assert_eq!(with(&spoil), Error::NotFinite(bad.to_owned()));
    }
    assert!(with(&|_| None).to_string().contains(bad));
}

fn first_logits(model: Model) -> Vec<f32> {
    let mut engine = Engine::new(Arc::new(model), 1).unwrap();
    let encoded = encode(&mut engine, &[&[5, 6, 7, 1]]);
    common::logits(&mut engine, &encoded[0], &[0]).remove(0)
}

#[test]
fn a_packed_model_comes_back_whole_or_not_at_all() {
    for (shape, precisions) in [(odd(), mixed()), (tiny(), Precisions::default())] {
        let small = Shape { vocab_size: 40, ..shape };
        let bytes = random(&small, &precisions).to_bytes();
        let again = Model::from_bytes(&bytes).unwrap();
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!((again.shape(), again.precisions()), (&small, &precisions));
        let fresh = Model::pack(&small, &|name| values(&small, name), &precisions).unwrap();
        assert_eq!(first_logits(again), first_logits(fresh));
        for length in (0..bytes.len()).step_by(97) {
            assert!(Model::from_bytes(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(Model::from_bytes(&longer), Err(Error::Damaged(_))));
    }
}

#[test]
fn a_damaged_packed_model_is_an_error_or_a_model_but_never_a_crash() {
    let small = Shape { vocab_size: 40, ..tiny() };
    let bytes = random(&small, &mixed()).to_bytes();
    let mut generator = common::Generator(1);
    for place in 0..140 {
        for value in [0, 0xff, generator.next() as u8] {
            let mut damaged = bytes.clone();
            damaged[place] = value;
            if let Ok(model) = Model::from_bytes(&damaged) {
                first_logits(model);
            }
        }
    }
    let mut damaged = bytes.clone();
    let middle = bytes.len() / 2;
    damaged[middle..].fill(0xff);
    assert!(matches!(Model::from_bytes(&damaged), Err(Error::Damaged(_))));
}

#[test]
fn rows_that_cannot_be_read_fail_alone() {
    let mut engine = Engine::new(random(&tiny(), &Precisions::default()), 2).unwrap();
    let found = engine.encode(&[&[3, 4, 1], &[], &[600], &[u32::MAX, 1], &[5, 1]]).unwrap();
    let good: Vec<bool> = found.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, false, false, true]);
    assert_eq!(found[4].as_ref().unwrap().length(), 2);
    assert!(engine.encode(&[]).unwrap().is_empty());
    assert!(found[2].as_ref().unwrap_err().to_string().contains("600"));
}

fn is_input<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Input(_)))
}

#[test]
fn slots_are_bounded_and_know_who_is_there() {
    let model = random(&tiny(), &Precisions::default());
    let mut engine = Engine::new(Arc::clone(&model), 1).unwrap();
    let encoded = encode(&mut engine, &[&[3, 4, 1]]).remove(0);
    assert!(is_input(Slots::new(&model, 0, 4)) && is_input(Slots::new(&model, 4, usize::MAX)));
    let mut slots = Slots::new(&model, 2, 4).unwrap();
    assert!(is_input(slots.join(&encoded, 0)) && is_input(slots.join(&encoded, 5)));
    let first = slots.join(&encoded, 4).unwrap();
    let second = slots.join(&encoded, 2).unwrap();
    assert!(is_input(slots.join(&encoded, 1)));
    assert!(slots.bytes() > 0 && slots.free() == 0 && slots.count() == 2);
    let feed = |slot, tokens| Feed { slot, tokens, want: Want::Choices };
    for bad in [
        vec![feed(first, &[0][..]), feed(first, &[0])],
        vec![feed(first, &[])],
        vec![feed(first, &[0, 2]), feed(second, &[0, 2, 3])],
        vec![feed(first, &[0, 600])],
    ] {
        assert!(is_input(engine.step(&mut slots, &bad)));
        assert_eq!(slots.length(first).unwrap(), 0, "no row has moved");
    }
    assert!(engine.step(&mut slots, &[]).unwrap().is_empty());
    engine.step(&mut slots, &[feed(first, &[0, 2, 3, 4])]).unwrap();
    assert!(is_input(engine.step(&mut slots, &[feed(first, &[0])])));
    assert!(is_input(slots.truncate(first, 5)));
    slots.truncate(first, 0).unwrap();
    slots.leave(first).unwrap();
    let third = slots.join(&encoded, 1).unwrap();
    assert!(
        is_input(slots.leave(first)) && is_input(slots.length(first)) && is_input(slots.truncate(first, 0))
    );
    assert!(is_input(engine.step(&mut slots, &[feed(first, &[0])])));
    slots.leave(second).unwrap();
    slots.leave(third).unwrap();
    assert_eq!((slots.bytes(), slots.free()), (0, 2));
}

#[test]
fn what_belongs_to_another_model_or_machine() {
    let (one, other) = (random(&tiny(), &Precisions::default()), random(&tiny(), &Precisions::default()));
    let mut engine = Engine::new(Arc::clone(&one), 1).unwrap();
    let encoded: Encoded = encode(&mut engine, &[&[3, 1]]).remove(0);
    let mut slots = Slots::new(&other, 1, 4).unwrap();
    assert!(is_input(slots.join(&encoded, 4)));
    assert!(is_input(engine.step(&mut slots, &[])));
    let mut stranger = Engine::new(other, 1).unwrap();
    let tree = LabelTree::new(&[&[3]]).unwrap();
    assert!(is_input(stranger.score(&encoded, &tree)));
    assert!(is_input(engine.score(&encoded, &LabelTree::new(&[&[3], &[600]]).unwrap())));
    assert!(engine.score(&encoded, &LabelTree::new(&[]).unwrap()).unwrap().is_empty());
    assert!(is_input(Engine::new(Arc::clone(&one), 0)) && is_input(Engine::new(one, 1000)));
    assert!(Tile::available().contains(&Tile::Scalar));
}

/// Weights that overflow one row's states: that row says so, and its neighbour does not notice.
#[test]
fn a_row_that_overflows_says_so_alone() {
    let shape = Shape { num_layers: 1, num_decoder_layers: 1, ..tiny() };
    let find = |name: &str| {
        let mut values = values(&shape, name)?;
        if name == "shared.weight" {
            values.chunks_mut(64).for_each(|row| row[0] = 0.0);
            values[5 * 64] = 100.0;
        }
        // Values of the attention overflow where a state has a first number.
        if name == "decoder.block.0.layer.0.SelfAttention.v.weight" {
            values.chunks_mut(64).for_each(|row| row[0] = 3e38);
        }
        Some(values)
    };
    for precision in [Precision::Int8, Precision::Int8Wide, Precision::Bfloat16] {
        let model = Arc::new(Model::pack(&shape, &find, &Precisions::all(precision)).unwrap());
        let mut engine = Engine::new(Arc::clone(&model), 2).unwrap();
        let encoded = encode(&mut engine, &[&[3, 1], &[4, 1]]);
        let mut slots = Slots::new(&model, 2, 2).unwrap();
        let joined: Vec<_> = encoded.iter().map(|row| slots.join(row, 2).unwrap()).collect();
        let feeds = [&[5, 5][..], &[0]];
        let feeds: Vec<Feed<'_>> = joined
            .iter()
            .zip(feeds)
            .map(|(slot, tokens)| Feed { slot: *slot, tokens, want: Want::Choices })
            .collect();
        let answers = engine.step(&mut slots, &feeds).unwrap();
        let [Answer::Choices(bad), Answer::Choices(good)] = answers.as_slice() else { panic!("{answers:?}") };
        assert!(!bad[0].finite && good[0].finite, "{precision:?}: {bad:?} {good:?}");
        // What the row has left in its slot does not reach the next one there.
        slots.truncate(joined[0], 0).unwrap();
        let feed = Feed { slot: joined[0], tokens: &[0], want: Want::Choices };
        let answers = engine.step(&mut slots, &[feed]).unwrap();
        let [Answer::Choices(again)] = answers.as_slice() else { panic!("{answers:?}") };
        assert!(again[0].finite, "{precision:?}");
    }
}
