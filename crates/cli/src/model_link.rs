//! Where people find the students of this machine: `models/NAME@VERSION` in the data folder, a link to the checkpoint.

use anyhow::Context;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The folder of the links in the data folder.
pub(crate) const MODELS: &str = "models";

/// Makes `models/NAME@VERSION` a link to a checkpoint's folder, and removes links to what is no longer there.
///
/// # Errors
/// The links cannot be written.
pub(crate) fn link(data_dir: &Path, model: &str, checkpoint: &Path) -> anyhow::Result<PathBuf> {
    let models = data_dir.join(MODELS);
    let link = models.join(model);
    let made = || -> std::io::Result<()> {
        fs::create_dir_all(&models)?;
        prune(&models)?;
        let target = fs::canonicalize(checkpoint)?;
        // The data folder may be moved as a whole.
        let target = match target.strip_prefix(fs::canonicalize(data_dir)?) {
            Ok(inside) => Path::new("..").join(inside),
            Err(_) => target,
        };
        match symlink(&target, &link) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if fs::read_link(&link)? != target {
                    fs::remove_file(&link)?;
                    symlink(&target, &link)?;
                }
                Ok(())
            }
            made => made,
        }
    };
    made().with_context(|| format!("{} cannot be written", link.display()))?;
    Ok(link)
}

fn prune(models: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(models)? {
        let path = entry?.path();
        if path.is_symlink() && !path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_student_is_found_by_its_name_wherever_the_folder_is_moved() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        for run in ["1", "2"] {
            let checkpoint = data.join("checkpoints/runs").join(run);
            fs::create_dir_all(&checkpoint).unwrap();
            fs::write(checkpoint.join("config.json"), run).unwrap();
        }
        let read =
            |data: &Path, model: &str| fs::read_to_string(data.join(MODELS).join(model).join("config.json"));
        for (model, run) in [("reviews@1", "1"), ("reviews@2", "2"), ("reviews@2", "2"), ("reviews@1", "2")] {
            link(&data, model, &data.join("checkpoints/runs").join(run)).unwrap();
            assert_eq!(read(&data, model).unwrap(), run);
        }
        let moved = parent.path().join("moved");
        fs::rename(&data, &moved).unwrap();
        assert_eq!(read(&moved, "reviews@2").unwrap(), "2");
        // Its run was deleted.
        fs::create_dir(moved.join("checkpoints/runs/3")).unwrap();
        fs::remove_dir_all(moved.join("checkpoints/runs/2")).unwrap();
        link(&moved, "other@1", &moved.join("checkpoints/runs/3")).unwrap();
        let left: Vec<_> =
            fs::read_dir(moved.join(MODELS)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["other@1"]);
    }
}
