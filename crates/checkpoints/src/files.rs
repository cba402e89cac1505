//! Folders appear and disappear whole.

use crate::CheckpointError;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Moves a staged folder to `target`, replacing what is there.
pub(crate) fn replace(staged: TempDir, target: &Path) -> Result<(), CheckpointError> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(|source| CheckpointError::io(parent, source))?;
    }
    remove(target)?;
    // Kept only once it is moved: a rename that fails leaves nothing behind.
    fs::rename(staged.path(), target).map_err(|source| CheckpointError::io(target, source))?;
    let _ = staged.keep();
    Ok(())
}

/// Removes a folder; it need not exist.
pub(crate) fn remove(folder: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(CheckpointError::io(folder, source))
        }
        _ => Ok(()),
    }
}
