//! `cargo xtask`: what the repository does to itself.

mod codegen;
mod metrics;
mod sql;
mod tidy;
mod word_problems;

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("codegen") => codegen::run(arguments),
        Some("metrics") => metrics::run(arguments),
        Some("sql") => sql::run(arguments),
        Some("tidy") => tidy::run(arguments),
        Some("word-problems") => word_problems::run(arguments),
        _ => bail!(
            "usage: cargo xtask codegen [--check] | metrics [--check] | sql [--check] | tidy | word-problems ..."
        ),
    }
}

/// The repository's root.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("xtask lies in crates/xtask")?.to_owned())
}
