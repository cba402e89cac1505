//! A private PostgreSQL: prints its URL, and stops when standard input ends. `cargo xtask sql` checks statements against it.
#![allow(clippy::print_stdout, reason = "the URL is what it is for")]

use std::io::Read;
use tests::postgres::Postgres;

fn main() -> anyhow::Result<()> {
    let postgres = Postgres::start()?;
    println!("{}", postgres.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
