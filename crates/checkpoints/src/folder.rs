//! What lies in a folder that somebody brings as a checkpoint: which files a student starts from, or why it cannot, with
//! the one line that helps.

use crate::CheckpointError;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A model's shape.
pub(crate) const CONFIG: &str = "config.json";
/// A tokenizer, ready to use.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// What a tokenizer is called, and its special tokens.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Weights in one file.
const WEIGHTS: &str = "model.safetensors";
/// The list of weights in several files.
const INDEX: &str = "model.safetensors.index.json";
/// Weights of other programs: the first letters and the ending of a name, and what they are.
const FOREIGN: [(&str, &str, Foreign); 6] = [
    ("pytorch_model", ".bin", Foreign::Pickle),
    ("pytorch_model", ".bin.index.json", Foreign::Pickle),
    ("adapter_model", "", Foreign::Adapter),
    ("tf_model", ".h5", Foreign::TensorFlow),
    ("flax_model", ".msgpack", Foreign::Flax),
    ("", ".gguf", Foreign::Gguf),
];
/// What a Git LFS pointer begins with.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// Most folders that a message names.
const NAMED_MAX: usize = 3;
/// Most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 10_000;
/// Largest description that is read.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 20;

/// Weights that are not safetensors.
#[derive(Debug, Clone, Copy)]
enum Foreign {
    Pickle,
    Adapter,
    TensorFlow,
    Flax,
    Gguf,
}

/// What a folder holds of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tokenizer {
    /// `tokenizer.json`.
    Ready,
    /// A SentencePiece model of this name.
    SentencePiece(String),
    /// None: ByT5 reads bytes.
    Bytes,
    /// `vocab.json` and `merges.txt`.
    Merges,
    /// None that is known.
    Absent,
}

/// The plain files of a folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    names: Vec<String>,
}

/// Checks that a student can start from `folder` or be served from it: configuration, weights and tokenizer are there, and
/// are what their names say. What they hold is checked when they are opened.
///
/// # Errors
/// What is missing or cannot be used, with the line that helps.
pub fn check_folder(folder: &Path) -> Result<(), CheckpointError> {
    base_files(folder).map(drop)
}

/// The files of a checkpoint that a student starts from.
pub(crate) fn base_files(path: &Path) -> Result<Vec<String>, CheckpointError> {
    let folder = Folder::open(path)?;
    folder.check_weights()?;
    folder.check_tokenizer()?;
    Ok(folder.checkpoint_files())
}

impl Folder {
    /// Lists a folder that has a configuration and no file that is a Git LFS pointer.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut names = Vec::new();
        for entry in list(path)? {
            if entry.is_file() {
                names.extend(entry.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        let folder = Self { path: path.to_owned(), names };
        if !folder.has(CONFIG) {
            return Err(folder.no_config());
        }
        folder.check_pointers()?;
        Ok(folder)
    }

    fn has(&self, wanted: &str) -> bool {
        self.names.iter().any(|name| name == wanted)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with the folder.
    pub(crate) fn unusable(&self, message: String) -> CheckpointError {
        CheckpointError::Unusable { path: self.path.clone(), message }
    }

    fn lacks(&self, missing: &'static str) -> CheckpointError {
        CheckpointError::Incomplete { path: self.path.clone(), missing }
    }

    /// Why there is no configuration: the checkpoint may lie further down.
    fn no_config(&self) -> CheckpointError {
        let found = below(&self.path);
        let shown: Vec<String> =
            found.iter().take(NAMED_MAX).map(|folder| folder.display().to_string()).collect();
        match shown.as_slice() {
            [] => self.lacks(CONFIG),
            [one] => self.unusable(format!("has no {CONFIG}: the checkpoint is the folder {one}")),
            several => self.unusable(format!(
                "has no {CONFIG}: name one folder in it, such as {}",
                several.join(" or ")
            )),
        }
    }

    /// Files that Git LFS left as pointers.
    fn check_pointers(&self) -> Result<(), CheckpointError> {
        let pointers = self.names.iter().filter(|name| is_pointer(&self.path.join(name)));
        let pointers: Vec<&str> = pointers.map(String::as_str).collect();
        if pointers.is_empty() {
            return Ok(());
        }
        let shown: Vec<&str> = pointers.iter().take(NAMED_MAX).copied().collect();
        Err(self.unusable(format!(
            "{} of its files hold Git LFS pointers in place of their content ({}): fetch them with: git -C '{}' lfs pull",
            pointers.len(),
            shown.join(", "),
            self.path.display()
        )))
    }

    /// Whether there are safetensors, and what there is in their place.
    pub(crate) fn check_weights(&self) -> Result<(), CheckpointError> {
        if self.has(WEIGHTS) || self.has(INDEX) {
            return Ok(());
        }
        let shard = |name: &&String| name.starts_with("model-") && name.ends_with(".safetensors");
        if let Some(shard) = self.names.iter().find(shard) {
            return Err(self.unusable(format!(
                "holds {shard} and no {INDEX}, which says what is where: copy it from where the checkpoint comes from"
            )));
        }
        let foreign = |name: &String| {
            let known = FOREIGN.iter().find(|(start, end, _)| name.starts_with(start) && name.ends_with(end));
            known.map(|(_, _, foreign)| (name.clone(), *foreign))
        };
        match self.names.iter().find_map(foreign) {
            Some((name, foreign)) => Err(self.unusable(self.conversion(&name, foreign))),
            None => Err(self.lacks(WEIGHTS)),
        }
    }

    /// The line that converts weights of another form.
    fn conversion(&self, name: &str, foreign: Foreign) -> String {
        let folder = self.path.display();
        let line = |class: &str, module: &str, options: &str, merge: &str| {
            format!(
                "python -c \"from {module} import {class} as M; M.from_pretrained('{folder}'{options}){merge}.save_pretrained('{folder}', safe_serialization=True)\""
            )
        };
        let model = "AutoModelForSeq2SeqLM";
        match foreign {
            Foreign::Pickle => format!(
                "holds {name}, a pickle, which can run code when it is read; convert it with: {}",
                line(model, "transformers", "", "")
            ),
            Foreign::Adapter => format!(
                "holds {name}, an adapter without its model; merge the two with: {}",
                line("AutoPeftModelForSeq2SeqLM", "peft", "", ".merge_and_unload()")
            ),
            Foreign::TensorFlow => format!(
                "holds {name}, weights of TensorFlow; convert them, with TensorFlow and a version of transformers before 5, \
                 with: {}",
                line(model, "transformers", ", from_tf=True", "")
            ),
            Foreign::Flax => format!(
                "holds {name}, weights of Flax; convert them, with Flax and a version of transformers before 5, with: {}",
                line(model, "transformers", ", from_flax=True", "")
            ),
            Foreign::Gguf => {
                format!("holds {name}, weights for llama.cpp: download the model's safetensors instead")
            }
        }
    }

    /// What there is of a tokenizer.
    pub(crate) fn tokenizer(&self) -> Tokenizer {
        let model = ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "sentencepiece.model"];
        if self.has(TOKENIZER) {
            Tokenizer::Ready
        } else if let Some(name) = model.into_iter().find(|name| self.has(name)) {
            Tokenizer::SentencePiece(name.to_owned())
        } else if self.describes_bytes() {
            Tokenizer::Bytes
        } else if self.has("vocab.json") && self.has("merges.txt") {
            Tokenizer::Merges
        } else {
            Tokenizer::Absent
        }
    }

    fn check_tokenizer(&self) -> Result<(), CheckpointError> {
        match self.tokenizer() {
            Tokenizer::Ready => Ok(()),
            absent => Err(self.no_tokenizer(&absent)),
        }
    }

    /// The line that writes `tokenizer.json` from what there is.
    pub(crate) fn no_tokenizer(&self, found: &Tokenizer) -> CheckpointError {
        let folder = self.path.display();
        let import = format!("write it with: distillery import checkpoint '{folder}'");
        self.unusable(match found {
            Tokenizer::SentencePiece(name) => format!("holds {name} and no {TOKENIZER}; {import}"),
            Tokenizer::Bytes => format!("is a ByT5, which reads bytes, and has no {TOKENIZER}; {import}"),
            Tokenizer::Merges => format!(
                "holds vocab.json and merges.txt and no {TOKENIZER}; write it with: python -c \"from transformers import \
                 AutoTokenizer as T; T.from_pretrained('{folder}').save_pretrained('{folder}')\""
            ),
            Tokenizer::Ready | Tokenizer::Absent => {
                format!("has no {TOKENIZER}: copy it, or spiece.model, from where the checkpoint comes from")
            }
        })
    }

    fn describes_bytes(&self) -> bool {
        let class = |name: &str| {
            let description = self.description(name).ok().flatten()?;
            description.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned)
        };
        [TOKENIZER_CONFIG, CONFIG].into_iter().find_map(class).is_some_and(|class| class == "ByT5Tokenizer")
    }

    /// A JSON file of the folder; `None` where it is absent.
    pub(crate) fn description(&self, name: &str) -> Result<Option<Value>, CheckpointError> {
        if !self.has(name) {
            return Ok(None);
        }
        let bytes = self.read(name)?;
        let json = |error: serde_json::Error| CheckpointError::Json {
            path: self.path.join(name),
            message: error.to_string(),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(json)
    }

    /// The content of a small file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let path = self.path.join(name);
        let io = |source| CheckpointError::io(&path, source);
        let mut bytes = Vec::new();
        File::open(&path).map_err(io)?.take(DESCRIPTION_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > DESCRIPTION_BYTES_MAX {
            let message = format!("is larger than {DESCRIPTION_BYTES_MAX} bytes: copy it again");
            return Err(CheckpointError::Unusable { path, message });
        }
        Ok(bytes)
    }

    /// The files that belong to a checkpoint.
    pub(crate) fn checkpoint_files(&self) -> Vec<String> {
        let belongs =
            |name: &&String| name.ends_with(".safetensors") || name.as_str() == INDEX || is_description(name);
        self.names.iter().filter(belongs).cloned().collect()
    }
}

/// Small files that belong to a checkpoint.
fn is_description(name: &str) -> bool {
    matches!(
        name,
        CONFIG | TOKENIZER | TOKENIZER_CONFIG | "special_tokens_map.json" | "generation_config.json"
    )
}

fn is_pointer(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(POINTER.len() as u64).read_to_end(&mut start));
    read.is_ok() && start == POINTER
}

/// The entries of a folder, in order of name.
fn list(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let io = |source| CheckpointError::io(folder, source);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)?.take(ENTRIES_MAX) {
        entries.push(entry.map_err(io)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// Checkpoints below a folder: in the cache of the Hugging Face hub (`models--*/snapshots/*`, the one that `refs/main` names
/// first), else in the folders that lie in it.
fn below(folder: &Path) -> Vec<PathBuf> {
    let is_model =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--"));
    let entries = list(folder).unwrap_or_default();
    let mut found = snapshots(folder);
    found.extend(
        entries.iter().filter(|path| is_model(path)).filter_map(|model| snapshots(model).into_iter().next()),
    );
    if found.is_empty() {
        found.extend(entries.into_iter().filter(|path| path.join(CONFIG).is_file()));
    }
    found
}

/// The snapshots of one model in the hub's cache.
fn snapshots(model: &Path) -> Vec<PathBuf> {
    let folder = model.join("snapshots");
    let main = fs::read_to_string(model.join("refs/main")).unwrap_or_default();
    let mut snapshots = list(&folder).unwrap_or_default();
    snapshots.retain(|path| path.join(CONFIG).is_file());
    if let Some(place) = snapshots.iter().position(|path| *path == folder.join(main.trim())) {
        snapshots.swap(0, place);
        snapshots.truncate(1);
    }
    snapshots
}
