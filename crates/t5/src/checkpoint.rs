//! Checkpoints in the Hugging Face layout: `config.json` and safetensors, whole or in shards. Pickles are refused.

use crate::config::{Config, SCALED};
use crate::initialise::{Slot, slots};
use crate::{Error, Result};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLE: &str = "pytorch_model.bin";

const EMBEDDING: &str = "shared.weight";
const HEAD: &str = "lm_head.weight";

/// Names under which the embedding is stored too.
const EMBEDDING_ALIASES: &[&str] = &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
/// A tensor of the first published checkpoints that no code ever used.
const UNUSED: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

/// Every tensor that `config` asks for, as float32 leaves on `device`, ordered by name.
pub(crate) fn read(folder: &Path, config: &Config, device: Device) -> Result<Vec<(String, Tensor)>> {
    let slots = slots(config);
    let mut wanted: HashMap<&str, &Slot> = slots.iter().map(|slot| (slot.name.as_str(), slot)).collect();
    if let Some(embedding) = wanted.get(EMBEDDING).copied() {
        // Tied checkpoints may hold the head as well: it must say the same.
        wanted.entry(HEAD).or_insert(embedding);
    }
    let mut found: BTreeMap<String, Tensor> = BTreeMap::new();
    for file in files(folder)? {
        read_file(folder, &file, &wanted, device, &mut found)?;
    }
    settle_head(folder, config, &mut found)?;
    slots
        .iter()
        .map(|slot| match found.remove(&slot.name) {
            Some(tensor) => Ok((slot.name.clone(), tensor)),
            None => Err(Error::MissingTensor { path: folder.to_owned(), name: slot.name.clone() }),
        })
        .collect()
}

/// Refuses a tied model whose head says something else. A v1.1 that version 5 of `transformers` began from scratch is
/// written without the head, which was the embedding: here it starts as a copy.
fn settle_head(folder: &Path, config: &Config, found: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let Some(embedding) = found.get(EMBEDDING) else { return Ok(()) };
    let head = found.get(HEAD);
    if config.tie_word_embeddings && head.is_some_and(|head| !head.equal(embedding)) {
        return Err(Error::Untied(folder.to_owned()));
    }
    if !config.tie_word_embeddings && head.is_none() && config.rest.contains_key(SCALED) {
        let head = embedding.copy();
        found.insert(HEAD.to_owned(), head);
    }
    Ok(())
}

/// The weight files of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join(INDEX);
    if folder.join(WHOLE).is_file() {
        return Ok(vec![folder.join(WHOLE)]);
    }
    if !index.is_file() {
        if folder.join(PICKLE).exists() {
            return Err(Error::Pickle(folder.to_owned()));
        }
        return Err(Error::Incomplete { path: folder.to_owned(), missing: WHOLE });
    }
    let damaged = |message: String| Error::Damaged { path: index.clone(), message };
    let text = std::fs::read_to_string(&index).map_err(|source| Error::Io { path: index.clone(), source })?;
    let json: Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| damaged("no weight_map".to_owned()))?;
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let plain = Path::new(name).file_name().is_some_and(|file| file == name);
            if !plain {
                return Err(damaged(format!("names the file `{name}` outside the folder")));
            }
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(damaged(format!("names the file `{name}`, which is absent")))
            }
        })
        .collect()
}

#[allow(unsafe_code, reason = "mapping a file")]
fn read_file(
    folder: &Path,
    path: &Path,
    wanted: &HashMap<&str, &Slot>,
    device: Device,
    found: &mut BTreeMap<String, Tensor>,
) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the mapping is read-only and dropped before this function returns; a checkpoint that somebody truncates
    // meanwhile ends the process, as it would for any reader of mapped files.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::Damaged { path: path.to_owned(), message: error.to_string() })?;
    // By name: the reader has an order of its own, and a damaged file must be called the same every time.
    let mut views = tensors.tensors();
    views.sort_by(|left, right| left.0.cmp(&right.0));
    for (name, view) in views {
        if name == UNUSED {
            continue;
        }
        let alias = EMBEDDING_ALIASES.contains(&name.as_str());
        let known = if alias { EMBEDDING } else { name.as_str() };
        let Some(slot) = wanted.get(known) else {
            return Err(Error::UnknownTensor { path: folder.to_owned(), name });
        };
        // An alias stands in for the embedding only where that is not stored itself.
        if alias && found.contains_key(known) {
            continue;
        }
        found.insert(known.to_owned(), tensor(folder, &name, &slot.shape, &view)?.to_device(device));
    }
    Ok(())
}

fn tensor(path: &Path, name: &str, expected: &[i64], view: &TensorView<'_>) -> Result<Tensor> {
    let (path, name) = (path.to_owned(), name.to_owned());
    let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
    if shape != expected {
        return Err(Error::Misshapen { path, name, found: shape, expected: expected.to_vec() });
    }
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
        other => return Err(Error::Dtype { path, name, dtype: format!("{other:?}") }),
    };
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?.to_kind(Kind::Float))
}

/// Writes the configuration and the weights. Each file is written beside its name and then renamed.
pub(crate) fn write(
    folder: &Path,
    config: &Config,
    parameters: &[(String, Tensor)],
    shard_bytes_max: u64,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let shards = shards(parameters, shard_bytes_max);
    if let [(_, only)] = shards.as_slice() {
        write_tensors(&folder.join(WHOLE), only)?;
        // What the folder held before must not be read in place of this.
        remove(&folder.join(INDEX))?;
    } else {
        let mut map = serde_json::Map::new();
        let mut total = 0;
        for (name, tensors) in &shards {
            write_tensors(&folder.join(name), tensors)?;
            for (tensor_name, tensor) in tensors {
                map.insert((*tensor_name).to_owned(), name.clone().into());
                total += tensor.numel() * 4;
            }
        }
        let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
        write_json(&folder.join(INDEX), &index)?;
        remove(&folder.join(WHOLE))?;
    }
    write_json(&folder.join("config.json"), &config.to_json())
}

type Shard<'a> = (String, Vec<(&'a str, &'a Tensor)>);

fn shards(parameters: &[(String, Tensor)], bytes_max: u64) -> Vec<Shard<'_>> {
    let mut groups: Vec<Vec<(&str, &Tensor)>> = vec![Vec::new()];
    let mut bytes = 0;
    for (name, tensor) in parameters {
        let size = tensor.numel() as u64 * 4;
        if bytes > 0 && bytes + size > bytes_max {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = groups.last_mut() {
            last.push((name, tensor));
        }
    }
    let count = groups.len();
    groups
        .into_iter()
        .enumerate()
        .map(|(place, group)| (format!("model-{:05}-of-{count:05}.safetensors", place + 1), group))
        .collect()
}

fn write_tensors(path: &Path, tensors: &[(&str, &Tensor)]) -> Result<()> {
    let mut data = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let mut bytes = vec![0; tensor.numel() * 4];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let shape: Vec<usize> = tensor.size().iter().map(|size| *size as usize).collect();
        data.push((*name, shape, bytes));
    }
    let damaged = |error: safetensors::SafeTensorError| Error::Damaged {
        path: path.to_owned(),
        message: error.to_string(),
    };
    let views = data
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(damaged)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let beside = path.with_extension("partial");
    safetensors::serialize_to_file(views, Some(metadata), &beside).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => Error::Io { path: beside.clone(), source },
        error => damaged(error),
    })?;
    std::fs::rename(&beside, path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_file(path, format!("{value:#}\n").as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let beside = path.with_extension("partial");
    std::fs::write(&beside, bytes).map_err(io)?;
    std::fs::rename(&beside, path).map_err(io)
}

/// Writes named tensors as one safetensors file, beside its name first.
///
/// # Errors
/// The file cannot be written.
pub fn save_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let tensors: Vec<(&str, &Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    write_tensors(path, &tensors)
}

/// Reads named float32 tensors, ordered by name, on the CPU.
///
/// # Errors
/// The file cannot be read, is damaged, or holds other formats.
pub fn load_tensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::Damaged { path: path.to_owned(), message: error.to_string() })?;
    let mut named = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
            let tensor = tensor(path, &name, &shape, &view)?;
            Ok((name, tensor))
        })
        .collect::<Result<Vec<_>>>()?;
    named.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(named)
}
