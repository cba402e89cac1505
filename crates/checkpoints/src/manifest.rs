//! The manifest: every file of a folder with its size and sha256, written last.

use crate::{CheckpointError, stored};
use domain::spec::is_name;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// Its name.
pub const MANIFEST: &str = "manifest.json";
/// The newest format. Format 0 is written without its number: a base checkpoint is known by the hash of its manifest, which
/// is to stay the same for the same files.
const FORMAT: u32 = 0;

/// The files of a folder, and of the folders in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// By path: names joined by `/`.
    pub files: BTreeMap<String, ManifestFile>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its size.
    pub bytes: u64,
    /// Its content, hex.
    pub sha256: String,
}

impl Manifest {
    /// Writes the manifest of what lies in `folder`, after everything in it has reached the disk. Returns its sha256.
    pub(crate) fn write(folder: &Path) -> Result<String, CheckpointError> {
        let mut files = BTreeMap::new();
        let mut folders = vec![(folder.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|source| CheckpointError::io(&folder, source))? {
                let path = entry.map_err(|source| CheckpointError::io(&folder, source))?.path();
                let name =
                    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                let name = format!("{prefix}{name}");
                if path.is_dir() {
                    folders.push((path, format!("{name}/")));
                } else if name != MANIFEST {
                    let io = |source| CheckpointError::io(&path, source);
                    File::open(&path).and_then(|file| file.sync_all()).map_err(io)?;
                    files.insert(name, measure(&path)?);
                }
            }
        }
        let path = folder.join(MANIFEST);
        let io = |source| CheckpointError::io(&path, source);
        let bytes = serde_json::to_vec_pretty(&Self { files })
            .map_err(|error| CheckpointError::Json { path: path.clone(), message: error.to_string() })?;
        fs::write(&path, &bytes).map_err(io)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(io)?;
        Ok(hex::encode(Sha256::digest(&bytes)))
    }

    /// Reads the manifest of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        Self::load(folder).map(|(manifest, _)| manifest)
    }

    /// Checks every file against the manifest, and the manifest against `sha256` where it is given.
    pub(crate) fn verify(folder: &Path, sha256: Option<&str>) -> Result<(), CheckpointError> {
        let (manifest, found) = Self::load(folder)?;
        if sha256.is_some_and(|sha256| found != sha256) {
            return Err(CheckpointError::Changed(folder.join(MANIFEST)));
        }
        for (name, entry) in manifest.files {
            let file = folder.join(&name);
            if !file.is_file() {
                return Err(CheckpointError::Damaged { path: folder.to_owned(), missing: name });
            }
            if measure(&file)? != entry {
                return Err(CheckpointError::Changed(file));
            }
        }
        Ok(())
    }

    /// The manifest and its sha256. It names files below the folder only, wherever it comes from.
    fn load(folder: &Path) -> Result<(Self, String), CheckpointError> {
        let path = folder.join(MANIFEST);
        let bytes = fs::read(&path).map_err(|_| CheckpointError::Damaged {
            path: folder.to_owned(),
            missing: MANIFEST.to_owned(),
        })?;
        let json = |message: String| CheckpointError::Json { path: path.clone(), message };
        let manifest: Self = stored::read(FORMAT, &bytes).map_err(json)?;
        match manifest.files.keys().find(|path| !path.split('/').all(is_name)) {
            Some(path) => Err(json(format!("names `{path}`, which is not a file below the folder"))),
            None => Ok((manifest, hex::encode(Sha256::digest(&bytes)))),
        }
    }
}

fn measure(path: &Path) -> Result<ManifestFile, CheckpointError> {
    let io = |source| CheckpointError::io(path, source);
    let mut file = File::open(path).map_err(io)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        bytes += read as u64;
    }
    Ok(ManifestFile { bytes, sha256: hex::encode(hasher.finalize()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<usize, &str>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST), text).unwrap();
        match (Manifest::read(folder.path()), expected) {
            (Ok(manifest), Ok(files)) => assert_eq!(manifest.files.len(), files),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (read, expected) => panic!("{read:?}, wanted {expected:?}"),
        }
    }

    #[test]
    fn manifests_of_other_versions_are_read() {
        let stored = include_str!("../../../tests/compat/0.1.0/manifest.json");
        check(stored, Ok(6));
        check(&stored.replacen('{', "{\"planted\": 1, ", 1), Ok(6));
        check(&stored.replacen("\"bytes\"", "\"planted\": 1, \"bytes\"", 1), Ok(6));
        check(&stored.replacen('{', "{\"format\": 7, ", 1), Err("of a newer version"));
        check("{}", Err("missing field `files`"));
    }
}
