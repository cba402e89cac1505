//! Where the repository lies.

use anyhow::Context;
use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("xtask lies in crates/xtask")?.to_owned())
}
