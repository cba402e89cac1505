//! The data folder: what it holds, and the teacher's answers are among it, is its owner's to read.

use anyhow::Context;
use std::path::Path;

/// Makes it where it is absent, whoever comes first. A folder that is there keeps its mode.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| folder.display().to_string())
}
