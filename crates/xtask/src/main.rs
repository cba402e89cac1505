//! `cargo xtask`: tasks of the repository that a crate can do: generated files, checks, tests, releases.

mod boundary;
mod changelog;
mod circles;
mod codegen;
mod generated;
mod metrics;
mod reference;
mod release;
mod repository;
mod reviews;
mod sql;
mod steps;
mod test;
mod tidy;
mod word_problems;

use anyhow::bail;

const COMMANDS: &str = "\
  codegen [--check]          the gRPC code of proto/
  metrics [--check]          deploy/METRICS.md
  reference [--check]        docs/reference/
  release VERSION [--check]  version, changelog and recorded protocol of a release
  reviews --out DIR          the rows of examples/reviews
  sql [--check]              the metadata of checked SQL
  steps --task T --out DIR   rows of several dependent steps, with a scripted teacher's rationales
  test [--jobs N] [NAME...]  every test, several programs at once
  tidy                       edges between crates, circles between files, manifests, the changelog's form
  word-problems --out DIR    the rows of examples/word-problems";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("codegen") => codegen::run(arguments),
        Some("metrics") => metrics::run(arguments),
        Some("reference") => reference::run(arguments),
        Some("release") => release::run(arguments),
        Some("reviews") => reviews::run(arguments),
        Some("sql") => sql::run(arguments),
        Some("steps") => steps::run(arguments),
        Some("test") => test::run(arguments),
        Some("tidy") => tidy::run(arguments),
        Some("word-problems") => word_problems::run(arguments),
        _ => bail!("usage: cargo xtask COMMAND\n{COMMANDS}"),
    }
}
