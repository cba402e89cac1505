//! The checkpoint store: a folder, or a bucket with a folder of this machine as its cache.
//!
//! `runs/<run>/<fence>/<step>-<what>/` is what trainers write, `base/<name>/` what students start from. A folder is
//! complete when its manifest (sha256 of every file) exists, and the manifest is written last.
//!
//! [`check_folder`] says whether a folder that a user brings can be used, and [`import_checkpoint`] writes the tokenizer that
//! some published checkpoints lack. Both look at files only, so that a build without libtorch has them.
//!
//! # Invariants
//!
//! - A folder appears whole or not at all, on a disk and in a bucket alike.
//! - No path leaves the store.
//! - safetensors only: nothing that is opened can run code.
//!
//! # Example
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let store = checkpoints::Checkpoints::open(folder.path())?;
//! let staged = store.stage()?;
//! std::fs::write(staged.path().join("model.safetensors"), b"weights")?;
//!
//! let path = checkpoints::Checkpoints::run_path("7f3", 1, 500, "model");
//! let sha256 = store.publish(staged, &path)?;
//! let fetched = store.fetch(&path, Some(&sha256))?;
//! assert_eq!(std::fs::read(fetched.join("model.safetensors"))?, b"weights");
//! assert!(store.folder("../outside").is_err());
//! # Ok(())
//! # }
//! ```

mod bucket;
mod error;
mod files;
mod folder;
mod import;
mod manifest;
mod predictions;
mod provenance;
mod sentencepiece;
pub mod stored;

pub use bucket::S3Settings;
pub use error::CheckpointError;
pub use folder::check_folder;
pub use import::{Imported, import_checkpoint};
pub use manifest::{MANIFEST, Manifest};
pub use predictions::{EXPLAINED_ROWS, Header, PREDICTIONS, Prediction, Predictions};
pub use provenance::{PROVENANCE, Provenance, RunOrigin, StartedFrom, model_card};

use bucket::Bucket;
use domain::spec::is_name;
use files::{remove, replace};
use folder::base_files;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// Where unfinished folders are: what a killed process leaves here is removed.
const STAGING: &str = "staging";
/// A staged folder of this age was left by a process that has ended.
const STAGED_FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A store in a folder, or in a bucket with a folder of this machine as its cache.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    root: PathBuf,
    bucket: Option<Bucket>,
}

impl Checkpoints {
    /// Opens the store in a folder that no other process writes to (the data folder's lock ensures it), creating it if
    /// needed: staged folders that an earlier process left are removed.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(root: &Path) -> Result<Self, CheckpointError> {
        Self::open_folder(root, Duration::ZERO)
    }

    /// Opens the store in a folder that several processes write to, on one machine or on a shared disk: staged folders
    /// are removed when they are a day old.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open_shared(root: &Path) -> Result<Self, CheckpointError> {
        Self::open_folder(root, STAGED_FOR_MAX)
    }

    /// Opens the store in a bucket; `cache` is a folder of this machine. Call it on a runtime, which runs the transfers; the
    /// other methods block on them and must be called outside it.
    ///
    /// # Errors
    /// The settings do not name a bucket that can be reached, or the cache cannot be created.
    pub fn open_bucket(settings: &S3Settings, cache: &Path) -> Result<Self, CheckpointError> {
        let Self { root, .. } = Self::open_shared(cache)?;
        let bucket = Bucket::open(settings, root.clone())?;
        Ok(Self { root, bucket: Some(bucket) })
    }

    fn open_folder(root: &Path, staged_for_max: Duration) -> Result<Self, CheckpointError> {
        let staging = root.join(STAGING);
        fs::create_dir_all(&staging).map_err(|source| CheckpointError::io(&staging, source))?;
        for entry in fs::read_dir(&staging).map_err(|source| CheckpointError::io(&staging, source))? {
            let path = entry.map_err(|source| CheckpointError::io(&staging, source))?.path();
            if is_older(&path, staged_for_max) {
                remove(&path)?;
            }
        }
        let root = root.canonicalize().map_err(|source| CheckpointError::io(root, source))?;
        Ok(Self { root, bucket: None })
    }

    /// A fresh folder to write into, on the store's own disk, removed when it is dropped.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn stage(&self) -> Result<TempDir, CheckpointError> {
        let staging = self.root.join(STAGING);
        TempDir::new_in(&staging).map_err(|source| CheckpointError::io(&staging, source))
    }

    /// The path of a trainer's folder.
    pub fn run_path(run: &str, fence: u64, step: u64, what: &str) -> String {
        format!("runs/{run}/{fence}/{step}-{what}")
    }

    /// Moves a staged folder to `path`, with its manifest. Returns the manifest's sha256 (hex). A folder that exists
    /// already, from a call whose answer was lost, is replaced.
    ///
    /// # Errors
    /// The disk is full or cannot be written, or the bucket refuses: the message names the file, and nothing appears at
    /// `path`.
    pub fn publish(&self, staged: TempDir, path: &str) -> Result<String, CheckpointError> {
        let target = self.folder(path)?;
        let sha256 = Manifest::write(staged.path())?;
        if let Some(bucket) = &self.bucket {
            bucket.upload(staged.path(), path)?;
        }
        replace(staged, &target)?;
        Ok(sha256)
    }

    /// The folder at `path`, whether or not it exists; for a bucket, its folder in the cache.
    ///
    /// # Errors
    /// The path leaves the store.
    pub fn folder(&self, path: &str) -> Result<PathBuf, CheckpointError> {
        let sound = !path.is_empty() && path.split('/').all(is_name);
        if !sound {
            return Err(CheckpointError::Path(path.to_owned()));
        }
        Ok(self.root.join(path))
    }

    /// The folder at `path`, every file as its manifest says.
    ///
    /// # Errors
    /// It is absent, incomplete, or damaged: the file is named.
    pub fn fetch(&self, path: &str, manifest_sha256: Option<&str>) -> Result<PathBuf, CheckpointError> {
        let folder = self.folder(path)?;
        match &self.bucket {
            Some(bucket) => bucket.download(path, manifest_sha256, self.stage()?),
            None => Manifest::verify(&folder, manifest_sha256).map(|()| folder),
        }
    }

    /// Deletes a folder; it need not exist.
    ///
    /// # Errors
    /// The path leaves the store, or cannot be deleted.
    pub fn delete(&self, path: &str) -> Result<(), CheckpointError> {
        let folder = self.folder(path)?;
        match &self.bucket {
            Some(bucket) => bucket.delete(path),
            None => remove(&folder),
        }
    }

    /// Deletes everything that the trainers of a run wrote, except the folder at `kept`.
    ///
    /// # Errors
    /// A path leaves the store, or cannot be deleted.
    pub fn prune_run(&self, run: &str, kept: &str) -> Result<(), CheckpointError> {
        if let Some(bucket) = &self.bucket {
            bucket.prune(&format!("runs/{run}"), kept)?;
        }
        let (run, kept) = (self.folder(&format!("runs/{run}"))?, self.folder(kept)?);
        for fence in entries(&run)? {
            let folders = entries(&fence)?;
            for folder in folders.iter().filter(|folder| **folder != kept) {
                fs::remove_dir_all(folder).map_err(|source| CheckpointError::io(folder, source))?;
            }
            if !folders.contains(&kept) {
                fs::remove_dir(&fence).map_err(|source| CheckpointError::io(&fence, source))?;
            }
        }
        Ok(())
    }

    /// Deletes all that the trainers of a run wrote.
    ///
    /// # Errors
    /// The path climbs out, or cannot be deleted.
    pub fn delete_run(&self, run: &str) -> Result<(), CheckpointError> {
        self.delete(&format!("runs/{run}"))
    }

    /// Copies a Hugging Face folder in under `base/`, named by `name` and its content, so that the same folder is the
    /// same base and a changed one is another. Returns the name and the manifest's sha256.
    ///
    /// # Errors
    /// The folder cannot be used: what is wrong with it is named, with what helps.
    pub fn register_base(&self, name: &str, source: &Path) -> Result<(String, String), CheckpointError> {
        let staged = self.stage()?;
        for file in base_files(source)? {
            let (from, to) = (source.join(&file), staged.path().join(&file));
            fs::copy(&from, &to).map_err(|error| CheckpointError::io(&from, error))?;
        }
        let sha256 = Manifest::write(staged.path())?;
        let short: String = sha256.chars().take(12).collect();
        let name = format!("{name}-{short}");
        if self.fetch(&format!("base/{name}"), Some(&sha256)).is_err() {
            self.publish(staged, &format!("base/{name}"))?;
        }
        Ok((name, sha256))
    }
}

/// The entries of a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let list = fs::read_dir(folder).map_err(|source| CheckpointError::io(folder, source))?;
    let paths = list
        .map(|entry| entry.map(|entry| entry.path()).map_err(|source| CheckpointError::io(folder, source)));
    paths.collect()
}

/// Whether nothing was written to it for this long; an unknown time counts as recent.
fn is_older(path: &Path, age: Duration) -> bool {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).unwrap_or_default() >= age)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (TempDir, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let store = Checkpoints::open(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    #[test]
    fn what_is_published_is_whole_and_damage_is_named() {
        let (_folder, store) = store();
        let staged = store.stage().unwrap();
        fs::write(staged.path().join("model.safetensors"), b"weights").unwrap();
        fs::create_dir(staged.path().join("predictions")).unwrap();
        fs::write(staged.path().join("predictions/test.jsonl"), b"rows").unwrap();
        let sha256 = store.publish(staged, "runs/a/1/5-model").unwrap();
        let folder = store.fetch("runs/a/1/5-model", Some(&sha256)).unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), b"weights");
        assert_eq!(fs::read(folder.join("predictions/test.jsonl")).unwrap(), b"rows");
        fs::write(folder.join("predictions/test.jsonl"), b"none").unwrap();
        let damaged = store.fetch("runs/a/1/5-model", Some(&sha256)).unwrap_err().to_string();
        assert!(damaged.contains("predictions/test.jsonl") && damaged.contains("copy it again"), "{damaged}");
        fs::write(folder.join("predictions/test.jsonl"), b"rows").unwrap();
        let wrong = store.fetch("runs/a/1/5-model", Some("00")).unwrap_err().to_string();
        assert!(wrong.contains("manifest.json"), "{wrong}");
        fs::write(folder.join("model.safetensors"), b"weightz").unwrap();
        let damaged = store.fetch("runs/a/1/5-model", Some(&sha256)).unwrap_err().to_string();
        assert!(damaged.contains("model.safetensors") && damaged.contains("copy it again"), "{damaged}");
        fs::remove_file(folder.join(MANIFEST)).unwrap();
        assert!(store.fetch("runs/a/1/5-model", None).unwrap_err().to_string().contains("incomplete"));
    }

    #[test]
    fn of_a_run_only_the_published_folder_is_kept() {
        let (_folder, store) = store();
        for path in ["runs/a/1/5-resume", "runs/a/2/5-resume", "runs/a/2/9-model", "runs/b/1/5-resume"] {
            store.publish(store.stage().unwrap(), path).unwrap();
        }
        store.prune_run("a", "runs/a/2/9-model").unwrap();
        let there = |path: &str| store.folder(path).unwrap().exists();
        assert!(there("runs/a/2/9-model") && there("runs/b/1/5-resume"));
        assert!(!there("runs/a/1") && !there("runs/a/2/5-resume"));
        assert!(store.prune_run("a", "../a").is_err());
    }

    #[test]
    fn no_path_leaves_the_store() {
        let (_folder, store) = store();
        for path in ["", "..", "a/../b", "/etc", "a//b", "a/.hidden", "a/b c"] {
            assert!(matches!(store.folder(path), Err(CheckpointError::Path(_))), "{path}");
        }
        store.delete("runs/none/1/1-model").unwrap();
    }

    #[test]
    fn a_base_is_named_by_its_content_and_a_pickle_is_refused() {
        let (folder, store) = store();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        let missing = |store: &Checkpoints| store.register_base("t5", &source).unwrap_err().to_string();
        assert!(missing(&store).contains("has no config.json"));
        fs::write(source.join("config.json"), "{}").unwrap();
        fs::write(source.join("pytorch_model.bin"), "x").unwrap();
        assert!(missing(&store).contains("save_pretrained"), "{}", missing(&store));
        fs::write(source.join("model.safetensors"), "x").unwrap();
        fs::write(source.join("tokenizer.json"), "{}").unwrap();
        let first = store.register_base("t5", &source).unwrap();
        assert_eq!(store.register_base("t5", &source).unwrap(), first);
        assert!(!store.folder(&format!("base/{}", first.0)).unwrap().join("pytorch_model.bin").exists());
        fs::write(source.join("config.json"), "{ }").unwrap();
        assert_ne!(store.register_base("t5", &source).unwrap().0, first.0);
    }
}
