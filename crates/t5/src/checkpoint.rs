//! Checkpoints in the Hugging Face layout: `config.json` and safetensors, whole or in shards.

use crate::config::{CONFIG, Config, GENERATION, Head};
use crate::initialise::{DECODER_EMBEDDING, EMBEDDING, HEAD, parameter_shapes};
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

/// The encoder's embedding under its own name: read, never written.
const ENCODER_EMBEDDING: &str = "encoder.embed_tokens.weight";
/// Every name under which an embedding or the output projection is stored.
const TABLES: [&str; 4] = [EMBEDDING, ENCODER_EMBEDDING, DECODER_EMBEDDING, HEAD];
/// A tensor of the first published checkpoints that no code ever used.
const UNUSED: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

/// The configuration, completed by what the weight files hold, and every tensor that it asks for: float32 leaves on
/// `device`, ordered by name.
pub(crate) fn read(folder: &Path, device: Device) -> Result<(Config, Vec<(String, Tensor)>)> {
    let (mut config, head) = Config::read(folder)?;
    let mut shapes: HashMap<String, Vec<i64>> =
        parameter_shapes(&config).into_iter().map(|parameter| (parameter.name, parameter.shape)).collect();
    shapes.extend(TABLES.map(|name| (name.to_owned(), vec![config.vocab_size, config.d_model])));
    let mut found: BTreeMap<String, Tensor> = BTreeMap::new();
    for file in files(folder)? {
        read_file(folder, &file, &shapes, device, &mut found)?;
    }
    let holds = |part: &str| found.keys().any(|name| name.starts_with(part));
    if holds("encoder.block.") && !holds("decoder.block.") {
        return Err(Error::EncoderOnly(folder.to_owned()));
    }
    let missing = |name: &str| Error::MissingTensor { path: folder.to_owned(), name: name.to_owned() };
    let absent = parameter_shapes(&config)
        .into_iter()
        .find(|shape| !TABLES.contains(&shape.name.as_str()) && !found.contains_key(&shape.name));
    if let Some(shape) = absent {
        return Err(missing(&shape.name));
    }
    settle_tables(folder, &mut config, head, &mut found)?;
    let parameters = parameter_shapes(&config).into_iter().map(|shape| match found.remove(&shape.name) {
        Some(tensor) => Ok((shape.name, tensor)),
        None => Err(missing(&shape.name)),
    });
    let parameters = parameters.collect::<Result<_>>()?;
    Ok((config, parameters))
}

/// Decides what each table is, as version 5 of `transformers` does: each name is read where it belongs, and what is absent
/// or equal is the shared one. The encoder's table becomes [`EMBEDDING`].
fn settle_tables(
    folder: &Path,
    config: &mut Config,
    rule: Head,
    found: &mut BTreeMap<String, Tensor>,
) -> Result<()> {
    let missing = |name: &str| Error::MissingTensor { path: folder.to_owned(), name: name.to_owned() };
    let [shared, encoder, decoder, head] = TABLES.map(|name| found.remove(name));
    let base = [&shared, &encoder, &decoder].into_iter().flatten().next();
    // A head alone is the embedding too, except where config.json says that it is not.
    let base = base.or(head.as_ref().filter(|_| rule != Head::Own)).ok_or_else(|| missing(EMBEDDING))?;
    let base = base.shallow_clone();
    let head = match (head, rule) {
        (None, Head::Own) => return Err(missing(HEAD)),
        (Some(head), Head::Tied) if !head.equal(&base) => return Err(Error::Untied(folder.to_owned())),
        (head, _) => head,
    };
    let embedding = encoder.unwrap_or_else(|| base.shallow_clone());
    let own = |table: Option<Tensor>| {
        let table = table.unwrap_or_else(|| base.shallow_clone());
        (!table.equal(&embedding)).then_some(table)
    };
    let (decoder, head) = (own(decoder), own(head));
    config.own_decoder_embedding = decoder.is_some();
    config.own_head = head.is_some();
    let tables = [(DECODER_EMBEDDING, decoder), (HEAD, head), (EMBEDDING, Some(embedding))];
    found.extend(tables.into_iter().filter_map(|(name, table)| Some((name.to_owned(), table?))));
    Ok(())
}

/// The weight files of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join(INDEX);
    if folder.join(WHOLE).is_file() {
        return Ok(vec![folder.join(WHOLE)]);
    }
    if !index.is_file() {
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
    shapes: &HashMap<String, Vec<i64>>,
    device: Device,
    found: &mut BTreeMap<String, Tensor>,
) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the mapping is read-only and dropped before this function returns; a checkpoint that is truncated
    // meanwhile ends the process, as with any mapped file.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::Damaged { path: path.to_owned(), message: error.to_string() })?;
    // By name: the reader's order varies, and a damaged file must give the same message every time.
    let mut views = tensors.tensors();
    views.sort_by(|left, right| left.0.cmp(&right.0));
    for (name, view) in views {
        if name == UNUSED {
            continue;
        }
        let Some(shape) = shapes.get(&name) else {
            return Err(Error::UnknownTensor { path: folder.to_owned(), name });
        };
        let tensor = tensor(folder, &name, shape, &view)?;
        check_finite(folder, &name, &tensor)?;
        found.insert(name, tensor.to_device(device));
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
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
        other => return Err(Error::Dtype { path, name, dtype: format!("{other:?}") }),
    };
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?.to_kind(Kind::Float))
}

/// One pass over the numbers, without a copy: a minimum and a maximum are finite where every number is.
fn check_finite(path: &Path, name: &str, tensor: &Tensor) -> Result<()> {
    let (least, most) = tensor.f_aminmax(None, false)?;
    if least.double_value(&[]).is_finite() && most.double_value(&[]).is_finite() {
        return Ok(());
    }
    let wrong = tensor.f_isfinite()?.f_logical_not()?.f_reshape([-1])?;
    let mut first = wrong.f_to_kind(Kind::Int8)?.f_argmax(0, false)?.int64_value(&[]);
    let mut position = Vec::new();
    for size in tensor.size().into_iter().rev() {
        position.insert(0, first % size);
        first /= size;
    }
    Err(Error::NotFinite {
        path: path.to_owned(),
        name: name.to_owned(),
        count: wrong.f_sum(Kind::Int64)?.int64_value(&[]),
        total: tensor.numel(),
        value: tensor.double_value(&position),
        position,
    })
}

/// Writes the configuration and the weights. Each file is written under another name and then renamed.
pub(crate) fn write(
    folder: &Path,
    config: &Config,
    parameters: &[(String, Tensor)],
    shard_bytes_max: u64,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let mut tensors: Vec<(&str, &Tensor)> =
        parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    if config.stores_head() && !config.own_head {
        tensors.extend(tensors.iter().find(|(name, _)| *name == EMBEDDING).map(|(_, table)| (HEAD, *table)));
        tensors.sort_by_key(|(name, _)| *name);
    }
    let shards = shards(&tensors, shard_bytes_max);
    if let [(_, only)] = shards.as_slice() {
        write_tensors(&folder.join(WHOLE), only)?;
        // What the folder held before must not be read instead of this.
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
    remove(&folder.join(GENERATION))?;
    write_json(&folder.join(CONFIG), &config.to_json())
}

type Shard<'a> = (String, Vec<(&'a str, &'a Tensor)>);

fn shards<'a>(tensors: &[(&'a str, &'a Tensor)], bytes_max: u64) -> Vec<Shard<'a>> {
    let mut groups: Vec<Vec<(&str, &Tensor)>> = vec![Vec::new()];
    let mut bytes = 0;
    for (name, tensor) in tensors {
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
        .map(|(index, group)| (format!("model-{:05}-of-{count:05}.safetensors", index + 1), group))
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
    let partial = path.with_extension("partial");
    safetensors::serialize_to_file(views, Some(metadata), &partial).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => Error::Io { path: partial.clone(), source },
        error => damaged(error),
    })?;
    std::fs::rename(&partial, path).map_err(|source| Error::Io { path: path.to_owned(), source })
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
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).map_err(io)?;
    std::fs::rename(&partial, path).map_err(io)
}

/// Writes named tensors as one safetensors file, under another name first.
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
