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
use tests::data::SpecText;
use tests::dice::Dice;
use tests::effort::Effort;
use tests::folder::{Folder, NOBODY};
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

/// A file that only the command line reads: its name, what it holds where it is good, and the verb that reads it.
type UserFile = (&'static str, String, &'static [&'static str]);

#[test]
fn no_file_of_a_user_breaks_the_command_line() {
    let mut dice = Dice::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let spec = SpecText { task: "task.toml", ..SpecText::default() };
    let folder = Folder::with_problems([6, 2, 2], &spec).unwrap();
    let plan = &["plan", "spec.toml", "--json"];
    let good: [UserFile; 3] = [
        ("spec.toml", format!("{spec}\n[study]\nseeds = [0, 1]\nsizes = [\"tiny\"]\n"), plan),
        ("task.toml", read("crates/domain/tasks/equation.toml"), plan),
        ("distillery.toml", read("crates/app/src/default.toml"), &["config"]),
    ];
    for (name, text, _) in &good {
        folder.write(name, text).unwrap();
    }
    for (name, _, arguments) in &good {
        let said = folder.say(NOBODY, arguments).unwrap();
        assert_eq!(said.code, 0, "{name}: {}", said.err);
    }
    for number in 0..Effort::asked(INPUTS).messages / 400 {
        let (name, text, arguments) = dice.one_of(&good).unwrap();
        let made = made_of(&mut dice.part(number), &[text.clone().into_bytes()]);
        folder.write(name, &made).unwrap();
        let said = folder.say(NOBODY, arguments).unwrap();
        let told = (0..=2).contains(&said.code) && !said.err.contains("panicked at");
        assert!(told, "{arguments:?} {}: {}: {:?}", said.code, said.err, String::from_utf8_lossy(&made));
        assert!(said.code == 0 || !said.err.trim().is_empty(), "{:?}", String::from_utf8_lossy(&made));
        folder.write(name, text).unwrap();
    }
}
