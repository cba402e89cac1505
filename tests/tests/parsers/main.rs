//! No bytes from outside break what reads them: whatever they are, they are read or refused. `fuzz/` searches longer, with
//! the same readers and seeds.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;
use targets::{TARGETS, Target, files};
use tests::dice::Dice;
use tests::effort::Effort;
use tests::mutation::made_of;

/// Inputs of all readers with the other tests.
const INPUTS: u64 = 4_000;
/// Most bytes of an input that a failure prints.
const SHOWN: usize = 4_000;

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let paths = target.seeds.iter().flat_map(|path| files(&root.join(path)));
    paths.map(|path| std::fs::read(path).unwrap()).collect()
}

/// Reads `inputs` inputs, and returns those that broke the reader.
fn search(target: &Target, dice: &mut Dice, inputs: u64) -> Vec<String> {
    let (seeds, began) = (seeds(target), Instant::now());
    assert!(!seeds.is_empty(), "{}: no seeds", target.name);
    let mut broken = Vec::new();
    let made = std::iter::from_fn(|| Some(made_of(dice, &seeds))).take(inputs as usize);
    for input in seeds.iter().cloned().chain(made) {
        if catch_unwind(AssertUnwindSafe(|| (target.read)(&input))).is_err() {
            let shown = &input[..input.len().min(SHOWN)];
            broken.push(format!(
                "{}: {} ({:?})",
                target.name,
                hex::encode(shown),
                String::from_utf8_lossy(shown)
            ));
        }
    }
    println!(
        "{}: {} inputs, {} broke it, {:.1?}",
        target.name,
        seeds.len() as u64 + inputs,
        broken.len(),
        began.elapsed()
    );
    broken
}

#[test]
fn no_bytes_break_a_reader() {
    let inputs = Effort::asked(INPUTS).messages / TARGETS.len() as u64;
    let dice = Dice::new();
    let broken: Vec<String> = std::thread::scope(|scope| {
        let searches: Vec<_> = TARGETS
            .iter()
            .enumerate()
            .map(|(number, target)| {
                let mut dice = dice.part(number as u64);
                scope.spawn(move || search(target, &mut dice, inputs))
            })
            .collect();
        searches.into_iter().flat_map(|search| search.join().unwrap()).collect()
    });
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
