//! The target for libFuzzer: the reader that `DISTILLERY_FUZZED` names, one of those that the tests know. Its seeds are put
//! into `DISTILLERY_FUZZ_SEEDS`.
#![no_main]
#![allow(missing_docs, reason = "libFuzzer's macro exports functions")]

#[path = "../tests/tests/parsers/targets.rs"]
mod targets;

use std::path::Path;
use std::sync::LazyLock;
use targets::{TARGETS, Target, files};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("DISTILLERY_FUZZED").unwrap_or_default();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let known = TARGETS.iter().find(|target| target.name == name);
    known.unwrap_or_else(|| panic!("DISTILLERY_FUZZED names no reader: {}", names()))
});

fn put_seeds(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let seeds = TARGET.seeds.iter().flat_map(|path| files(&root.join(path)));
    for (number, seed) in seeds.enumerate() {
        std::fs::copy(&seed, folder.join(format!("seed-{number}"))).expect("a seed cannot be copied");
    }
}

libfuzzer_sys::fuzz_target!(
    init: {
        // The library's hook ends the process at a panic that its reader catches, too; one that nobody catches still ends it.
        drop(std::panic::take_hook());
        if let Some(folder) = std::env::var_os("DISTILLERY_FUZZ_SEEDS") {
            put_seeds(Path::new(&folder));
        }
    },
    |bytes: &[u8]| (TARGET.read)(bytes)
);
