//! A row's bits do not depend on who is computed beside it, on how its tokens arrive, or on how many threads there are.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may stop at what it does not expect"
)]

mod common;

use common::{Generator, encode, logits, mid, mixed, odd, random, tiny};
use decoder::{
    Answer, Choice, Encoded, Engine, Feed, LabelTree, Model, Precisions, Shape, Slot, Slots, Tile, Want,
};
use std::sync::Arc;

const STEPS: usize = 6;

/// A model, rows of ids, and what each row gives alone on one thread: `[rows][steps]`.
struct Alone {
    model: Arc<Model>,
    rows: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
    logits: Vec<Vec<Vec<f32>>>,
}

fn alone(shape: &Shape, precisions: &Precisions) -> Alone {
    let model = random(shape, precisions);
    let mut generator = Generator(5);
    let rows: Vec<Vec<u32>> = (0..16)
        .map(|row| {
            let length = [1, 2, 15, 16, 17, 33, 40, 70][row % 8];
            generator.ids(length, shape.vocab_size)
        })
        .collect();
    let target = |_: &Vec<u32>| {
        std::iter::once(shape.decoder_start_token_id)
            .chain(generator.ids(STEPS - 1, shape.vocab_size))
            .collect()
    };
    let targets: Vec<Vec<u32>> = rows.iter().map(target).collect();
    let mut engine = Engine::new(Arc::clone(&model), 1).unwrap();
    let logits = rows
        .iter()
        .zip(&targets)
        .map(|(row, target)| {
            let encoded = encode(&mut engine, &[row]);
            logits(&mut engine, &encoded[0], target)
        })
        .collect();
    Alone { model, rows, targets, logits }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

impl Alone {
    fn engine(&self, threads: usize) -> Engine {
        Engine::new(Arc::clone(&self.model), threads).unwrap()
    }

    fn encode(&self, engine: &mut Engine) -> Vec<Encoded> {
        encode(engine, &self.rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// Feeds each row of `feeds` some of its target's tokens and compares what comes back.
    fn step(&self, engine: &mut Engine, slots: &mut Slots, feeds: &[(usize, Slot, usize)]) {
        let starts: Vec<usize> = feeds.iter().map(|(_, slot, _)| slots.length(*slot).unwrap()).collect();
        let fed: Vec<Feed<'_>> = feeds
            .iter()
            .zip(&starts)
            .map(|((row, slot, count), start)| Feed {
                slot: *slot,
                tokens: &self.targets[*row][*start..start + count],
                want: Want::Logits,
            })
            .collect();
        let answers = engine.step(slots, &fed).unwrap();
        for (((row, _, count), start), answer) in feeds.iter().zip(starts).zip(answers) {
            let Answer::Logits(found) = answer else { panic!("{answer:?}") };
            for (index, found) in found.chunks(self.model.shape().vocab_size).enumerate() {
                assert_eq!(
                    bits(found),
                    bits(&self.logits[*row][start + index]),
                    "row {row}, {count} at {start}"
                );
            }
        }
    }
}

fn check(shape: &Shape, precisions: &Precisions) {
    let alone = alone(shape, precisions);
    for threads in [1, 2, 3] {
        let mut engine = alone.engine(threads);
        let encoded = alone.encode(&mut engine);
        let mut slots = Slots::new(&alone.model, 16, STEPS).unwrap();
        // One row alone for a while; then all others, of which some read several tokens at once.
        let first = slots.join(&encoded[0], STEPS).unwrap();
        alone.step(&mut engine, &mut slots, &[(0, first, 1)]);
        alone.step(&mut engine, &mut slots, &[(0, first, 2)]);
        let mut joined = vec![(0, first)];
        for (row, encoded) in encoded.iter().enumerate().skip(1) {
            joined.push((row, slots.join(encoded, STEPS).unwrap()));
        }
        let counts = |row: usize| if row.is_multiple_of(3) { 2 } else { 1 };
        let feeds: Vec<_> = joined.iter().map(|(row, slot)| (*row, *slot, counts(*row))).collect();
        alone.step(&mut engine, &mut slots, &feeds);
        // The first row leaves, another one takes its slot; one forgets its last tokens.
        slots.leave(first).unwrap();
        let again = slots.join(&encoded[5], STEPS).unwrap();
        slots.truncate(joined[3].1, 1).unwrap();
        let rest = joined.iter().skip(1).map(|(row, slot)| (*row, *slot, counts(*row)));
        let feeds: Vec<_> = rest.chain([(5, again, 4)]).collect();
        alone.step(&mut engine, &mut slots, &feeds);
        for few in 2..8 {
            let row = 8 + few;
            let feeds: Vec<_> = joined[row..].iter().map(|(row, slot)| (*row, *slot, 1)).collect();
            for (row, slot) in &joined[row..] {
                slots.truncate(*slot, *row % 2).unwrap();
            }
            alone.step(&mut engine, &mut slots, &feeds);
        }
    }
}

#[test]
fn bits_of_a_tiny_model() {
    check(&tiny(), &Precisions::default());
}

#[test]
fn bits_of_a_tiny_model_in_mixed_precisions() {
    check(&tiny(), &mixed());
}

#[test]
fn bits_of_a_model_of_odd_widths() {
    check(&odd(), &mixed());
}

#[test]
fn bits_of_a_larger_model() {
    check(&mid(), &Precisions::default());
}

#[test]
fn every_tile_gives_the_same_bits() {
    for shape in [tiny(), odd()] {
        let alone = alone(&shape, &mixed());
        for tile in Tile::available() {
            let mut engine = Engine::with_tile(Arc::clone(&alone.model), 2, tile).unwrap();
            let encoded = alone.encode(&mut engine);
            let mut slots = Slots::new(&alone.model, 16, STEPS).unwrap();
            let feeds: Vec<_> = encoded
                .iter()
                .enumerate()
                .map(|(row, encoded)| (row, slots.join(encoded, STEPS).unwrap(), STEPS))
                .collect();
            alone.step(&mut engine, &mut slots, &feeds);
        }
    }
}

/// Log-softmax of one token, in float64.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, logit| largest.max(f64::from(*logit)));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    f64::from(logits[token as usize]) - largest - sum.ln()
}

#[test]
fn choices_are_those_of_the_logits() {
    for shape in [tiny(), odd()] {
        let alone = alone(&shape, &Precisions::default());
        for threads in [1, 2] {
            let mut engine = alone.engine(threads);
            for (row, encoded) in alone.encode(&mut engine).iter().enumerate() {
                let mut slots = Slots::new(&alone.model, 1, STEPS).unwrap();
                let slot = slots.join(encoded, STEPS).unwrap();
                let feed = Feed { slot, tokens: &alone.targets[row], want: Want::Choices };
                let answers = engine.step(&mut slots, &[feed]).unwrap();
                let Answer::Choices(choices) = &answers[0] else { panic!("{answers:?}") };
                for (Choice { id, log_probability: found, finite }, logits) in
                    choices.iter().zip(&alone.logits[row])
                {
                    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    assert!(*finite);
                    assert_eq!(*id as usize, logits.iter().position(|logit| *logit == largest).unwrap());
                    assert!((found - log_probability(logits, *id)).abs() < 2e-6, "{found}");
                }
            }
        }
    }
}

#[test]
fn scores_of_a_tree_are_the_sums_of_its_steps_and_do_not_depend_on_company() {
    for shape in [tiny(), odd()] {
        let alone = alone(&shape, &mixed());
        let mut generator = Generator(9);
        let trunk = generator.ids(3, shape.vocab_size);
        let mut candidates: Vec<Vec<u32>> = vec![Vec::new(), trunk.clone(), trunk[..1].to_vec()];
        for length in 1..20 {
            let mut candidate = trunk[..generator.below(4)].to_vec();
            candidate.extend(generator.ids(length % 5, shape.vocab_size));
            candidates.push(candidate);
        }
        let slices: Vec<&[u32]> = candidates.iter().map(Vec::as_slice).collect();
        let (tree, small) = (LabelTree::new(&slices).unwrap(), LabelTree::new(&slices[..2]).unwrap());
        let mut engine = alone.engine(1);
        let encoded = alone.encode(&mut engine);
        let single: Vec<Vec<f64>> =
            encoded.iter().take(4).map(|encoded| engine.score(encoded, &tree).unwrap()).collect();
        for (encoded, scores) in encoded.iter().zip(&single) {
            for (candidate, score) in candidates.iter().zip(scores) {
                let inputs: Vec<u32> = std::iter::once(0).chain(candidate.iter().copied()).collect();
                let steps = logits(&mut engine, encoded, &inputs);
                let tokens = candidate.iter().copied().chain([1]);
                let sum: f64 =
                    steps.iter().zip(tokens).map(|(logits, token)| log_probability(logits, token)).sum();
                assert!((sum - score).abs() < 1e-5, "{sum} {score}");
            }
        }
        for threads in [1, 2] {
            let mut engine = alone.engine(threads);
            let mut rows: Vec<(&Encoded, &LabelTree)> =
                encoded.iter().take(4).map(|encoded| (encoded, &tree)).collect();
            rows.insert(2, (&encoded[7], &small));
            let mut many = engine.score_many(&rows).unwrap();
            many.remove(2);
            assert_eq!(many, single, "{threads} threads");
        }
    }
}

/// Rows beyond one encoder pass, and long drafts: what is computed together changes, the bits do not.
#[test]
fn long_rows_and_long_drafts() {
    let shape = tiny();
    let model = random(&shape, &Precisions::default());
    let mut generator = Generator(21);
    let rows: Vec<Vec<u32>> =
        [700, 3, 513, 100, 411].map(|length| generator.ids(length, shape.vocab_size)).to_vec();
    let target = generator.ids(150, shape.vocab_size);
    let mut expected = Vec::new();
    for threads in [1, 2] {
        let mut engine = Engine::new(Arc::clone(&model), threads).unwrap();
        let together = encode(&mut engine, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for (row, together) in rows.iter().zip(&together) {
            let alone = encode(&mut engine, &[row]);
            let mut slots = Slots::new(&model, 2, target.len()).unwrap();
            let feeds = [together, &alone[0]].map(|encoded| Feed {
                slot: slots.join(encoded, target.len()).unwrap(),
                tokens: &target,
                want: Want::Choices,
            });
            let answers = engine.step(&mut slots, &feeds).unwrap();
            assert_eq!(answers[0], answers[1]);
            expected.push(answers[0].clone());
        }
        let (first, second) = expected.split_at(rows.len());
        assert!(second.is_empty() || first == second);
        // The same, fed one by one.
        let mut slots = Slots::new(&model, 1, target.len()).unwrap();
        let slot = slots.join(&together[0], target.len()).unwrap();
        let mut choices = Vec::new();
        for token in target.chunks(1) {
            let feed = Feed { slot, tokens: token, want: Want::Choices };
            let Some(Answer::Choices(next)) = engine.step(&mut slots, &[feed]).unwrap().pop() else {
                panic!()
            };
            choices.extend(next);
        }
        assert_eq!(Answer::Choices(choices), expected[0]);
    }
}
