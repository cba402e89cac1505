//! What the tests share: the device they run on, the golden files, and how far numbers may be apart.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use t5::{Batch, Compute, ForwardOptions, Model};
use tch::{Device, Kind, Tensor};

/// Where the tests compute: `DISTILLERY_TEST_DEVICE` is `cpu` (where it is unset) or `cuda`, which must then be there.
pub fn device() -> Device {
    match std::env::var("DISTILLERY_TEST_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Device::Cpu,
        Ok("cuda") => {
            let device = t5::device::select();
            assert!(device.is_cuda(), "DISTILLERY_TEST_DEVICE=cuda, and no CUDA device is found");
            device
        }
        Ok(other) => panic!("DISTILLERY_TEST_DEVICE={other}: cpu and cuda are known"),
    }
}

/// The largest difference from `transformers` in float32.
pub fn tolerance() -> f64 {
    if device().is_cuda() { 1e-3 } else { 1e-4 }
}

/// A checkpoint that `scripts/golden.sh` wrote, and what `transformers` computes with it.
pub struct Golden {
    pub folder: PathBuf,
    pub model: Model,
    pub expected: HashMap<String, Tensor>,
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The kinds of checkpoint that are read, as [`Golden::open`] knows them.
pub fn kinds() -> Vec<String> {
    let entries = std::fs::read_dir(folder("kinds")).unwrap();
    let names = entries.map(|entry| format!("kinds/{}", entry.unwrap().file_name().into_string().unwrap()));
    let mut names: Vec<String> =
        names.filter(|name| folder(name).join("expected.safetensors").is_file()).collect();
    names.sort();
    assert!(names.len() > 20, "{names:?}");
    names
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let folder = folder(name);
        let model = Model::load(&folder, device()).unwrap();
        let expected = Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap();
        Self { folder, model, expected: expected.into_iter().collect() }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.expected.get(name).unwrap_or_else(|| panic!("no golden `{name}`")).shallow_clone()
    }

    pub fn ids(&self) -> Tensor {
        self.tensor("input_ids")
    }

    pub fn mask(&self) -> Tensor {
        self.tensor("input_mask").to_kind(Kind::Bool)
    }

    pub fn batch(&self) -> Batch {
        Batch { input_ids: self.ids(), input_mask: self.mask(), labels: self.tensor("labels") }
    }

    /// Rows of ids that end where -1 begins.
    pub fn texts(&self, name: &str) -> Vec<Vec<i64>> {
        rows(&self.tensor(name))
            .into_iter()
            .map(|row| row.into_iter().take_while(|id| *id >= 0).collect())
            .collect()
    }

    /// How many tokens of each row are no padding.
    pub fn lengths(&self) -> Vec<i64> {
        Vec::try_from(self.tensor("input_mask").sum_dim_intlist(&[1_i64][..], false, Kind::Int64)).unwrap()
    }
}

pub fn rows(ids: &Tensor) -> Vec<Vec<i64>> {
    Vec::try_from(ids).unwrap()
}

pub fn pass(compute: Compute) -> ForwardOptions {
    ForwardOptions { compute, dropout: 0.0 }
}

/// The largest difference between two tensors of one shape.
pub fn difference(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    let far = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let difference = (far(left) - far(right)).abs().max().double_value(&[]);
    assert!(!difference.is_nan(), "not a number");
    difference
}

/// Fails where two tensors differ by more than `most`; says by how much they do.
pub fn close(what: &str, left: &Tensor, right: &Tensor, most: f64) {
    let difference = difference(left, right);
    println!("{what}: largest difference {difference:.1e}");
    assert!(difference <= most, "{what}: largest difference {difference:e}, at most {most:e}");
}

/// The library's generator is one for the whole process: tests that draw from it take turns.
pub fn chance() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows side by side, padded on the right with the id 9 where nothing is to be read.
pub fn padded(rows: &[Vec<i64>]) -> (Tensor, Tensor) {
    let length = rows.iter().map(Vec::len).max().unwrap();
    let mut ids = Vec::new();
    let mut mask = Vec::new();
    for row in rows {
        ids.extend(row.iter().copied().chain(std::iter::repeat_n(9, length - row.len())));
        mask.extend((0..length).map(|place| place < row.len()));
    }
    let shape = [rows.len() as i64, length as i64];
    (Tensor::from_slice(&ids).reshape(shape), Tensor::from_slice(&mask).reshape(shape))
}
