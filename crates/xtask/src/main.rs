//! `cargo xtask`: what the repository does to itself.

mod boundary;
mod circles;
mod codegen;
mod metrics;
mod repository;
mod sql;
mod tidy;
mod word_problems;

use anyhow::bail;

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
