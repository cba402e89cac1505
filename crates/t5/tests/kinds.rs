//! Every kind of T5 checkpoint that docs/MODELS.md lists, as `transformers` reads it: tiny ones that
//! `scripts/golden.sh` wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too, and tests have their own environment"
)]

mod common;

use common::{Golden, close, device, difference, folder, kinds, pass, tolerance};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use t5::{Compute, GenerateOptions, Model, Strategy};
use tch::Tensor;

/// Names under which `transformers` keeps an embedding or the output projection.
const TABLES: [&str; 4] =
    ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];

#[test]
fn every_kind_computes_what_transformers_computes() {
    for name in kinds() {
        let golden = Golden::open(&name);
        let batch = golden.batch();
        let logits = golden.model.forward(&batch, &pass(Compute::Float32)).unwrap();
        close(&format!("{name} logits"), &logits, &golden.tensor("logits"), tolerance());
        let loss = t5::mean_loss(&logits, &batch.labels).reshape([1]);
        close(&format!("{name} loss"), &loss, &golden.tensor("loss"), tolerance());
    }
}

/// What is one weight there is one weight here: it learns as one.
#[test]
fn every_kind_learns_with_the_tables_that_it_has_in_transformers() {
    for name in kinds() {
        let mut golden = Golden::open(&name);
        golden.model.set_trainable(true);
        let batch = golden.batch();
        let logits = golden.model.forward(&batch, &pass(Compute::Float32)).unwrap();
        t5::mean_loss(&logits, &batch.labels).backward();
        let tables = golden.model.parameters().iter().filter(|(name, _)| TABLES.contains(&name.as_str()));
        let mut ours = BTreeSet::new();
        for (table, tensor) in tables {
            let expected = golden.tensor(&format!("gradient.{table}"));
            assert!(expected.abs().max().double_value(&[]) > 10.0 * tolerance(), "{name} {table}");
            close(&format!("{name} gradient of {table}"), &tensor.grad(), &expected, tolerance());
            ours.insert(table.clone());
        }
        let theirs: BTreeSet<String> = golden
            .expected
            .keys()
            .filter_map(|name| name.strip_prefix("gradient.").map(str::to_owned))
            .collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn every_kind_writes_what_transformers_writes() {
    for name in kinds() {
        let golden = Golden::open(&name);
        let options =
            GenerateOptions { tokens_max: 8, strategy: Strategy::Greedy, compute: Compute::Float32 };
        let texts = t5::generate(&golden.model, &golden.ids(), &golden.mask(), &options).unwrap();
        assert_eq!(texts, golden.texts("greedy"), "{name}");
    }
}

#[test]
fn every_kind_that_is_saved_opens_as_the_same_model() {
    for name in kinds() {
        let golden = Golden::open(&name);
        let to = tempfile::tempdir().unwrap();
        // What lay there before has no say.
        fs::write(to.path().join("generation_config.json"), r#"{"eos_token_id": 9}"#).unwrap();
        golden.model.save(to.path(), u64::MAX).unwrap();
        let again = Model::load(to.path(), device()).unwrap();
        let shape = |model: &Model| t5::Config { rest: serde_json::Map::new(), ..model.config().clone() };
        assert_eq!(shape(&again), shape(&golden.model), "{name}");
        for ((left, one), (right, other)) in golden.model.parameters().iter().zip(again.parameters()) {
            assert!(left == right && one.equal(other), "{name} {left} {right}");
        }
    }
}

/// The numbers that tell the kinds apart are far enough apart to tell: what one computes is not what another does.
#[test]
fn kinds_that_differ_in_one_field_differ_in_what_they_compute() {
    let far = |left: &str, right: &str, tensor: &str| {
        let of = |name: &str| Golden::open(&format!("kinds/{name}")).tensor(tensor);
        assert!(
            difference(&of(left), &of(right)) > 10.0 * tolerance(),
            "{left} and {right} have one {tensor}"
        );
    };
    far("v1_1", "gated-gelu-erf", "logits");
    far("v1_1", "dense-act-fn-silu", "logits");
    far("v1_1", "v1_1-scratch-transformers-5", "loss");
}

/// Kinds that are refused, and what is said of them.
#[test]
fn kinds_that_are_refused_say_why() {
    let check = |name: &str, needles: &[&str]| {
        let folder = folder(&format!("kinds/{name}"));
        let message = Model::load(&folder, device()).expect_err(name).to_string();
        for needle in [folder.to_str().unwrap()].iter().chain(needles) {
            assert!(message.contains(needle), "`{needle}` is not in: {message}");
        }
    };
    check("unknown-activation", &["config.json: dense_act_fn: names the activation `mish`: relu"]);
    check("head-differs", &["`lm_head.weight` differs from the embedding, and config.json ties them"]);
    check("ends-differ", &["generation_config.json: eos_token_id: is [2], and config.json says 1"]);
    check("int8", &["tensor `decoder.block.0.layer.2.DenseReluDense.wo.weight` is I8: float64, float32"]);
    check("umt5", &["config.json: model_type: is `umt5`: only t5 and mt5 checkpoints are read"]);
    check("encoder-only", &["holds an encoder and no decoder", "T5ForConditionalGeneration"]);
    check(
        "overflowed",
        &[
            "tensor `decoder.block.0.layer.2.DenseReluDense.wo.weight` is inf at [3, 5]",
            "(1 of its 96 numbers are not finite)",
            "float16",
        ],
    );
}

/// docs/MODELS.md lists every kind, and says of each what happens.
#[test]
fn the_table_of_kinds_says_what_happens() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/MODELS.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, table) = document.split_once("## What config.json and the weights say").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let mut listed = BTreeSet::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, verdict) = (cells[1].trim_matches('`'), cells[3]);
        let opens = Model::load(&folder(&format!("kinds/{name}")), device()).is_ok();
        assert_eq!(verdict, if opens { "opens" } else { "refused" }, "{name}");
        listed.insert(name.to_owned());
    }
    let made = fs::read_dir(folder("kinds")).unwrap();
    let made: BTreeSet<String> =
        made.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(listed, made);
}

/// Every number of every tensor is looked at, and those that are wrong are counted.
#[test]
fn numbers_that_are_not_finite_are_found_wherever_they_are() {
    for (value, shown) in [(f64::NAN, "NaN"), (f64::NEG_INFINITY, "-inf"), (f64::INFINITY, "inf")] {
        let to = tempfile::tempdir().unwrap();
        let model = Golden::open("kinds/v1_1").model;
        model.save(to.path(), u64::MAX).unwrap();
        let path = to.path().join("model.safetensors");
        let names: Vec<String> = model.parameters().iter().map(|(name, _)| name.clone()).collect();
        for damaged in &names {
            let mut tensors = t5::checkpoint::load_tensors(&path).unwrap();
            let tensor = &mut tensors.iter_mut().find(|(name, _)| name == damaged).unwrap().1;
            let count = tensor.numel() as i64;
            *tensor = tensor.copy();
            for place in [count - 1, count / 2] {
                let _ = tensor.view([-1]).get(place).fill_(value);
            }
            let position: Vec<i64> = match tensor.size().as_slice() {
                [_] => vec![count / 2],
                [_, columns] => vec![count / 2 / columns, count / 2 % columns],
                other => panic!("{other:?}"),
            };
            let altered = tempfile::tempdir().unwrap();
            fs::copy(to.path().join("config.json"), altered.path().join("config.json")).unwrap();
            t5::checkpoint::save_tensors(&altered.path().join("model.safetensors"), &tensors).unwrap();
            let message = Model::load(altered.path(), device()).unwrap_err().to_string();
            let needle =
                format!("`{damaged}` is {shown} at {position:?} (2 of its {count} numbers are not finite)");
            assert!(message.contains(&needle), "`{needle}` is not in: {message}");
        }
    }
}

/// Numbers that float64 holds and float32 does not.
#[test]
fn a_float64_weight_beyond_float32_is_not_finite() {
    let to = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(folder("kinds/float64").join(file), to.path().join(file)).unwrap();
    }
    let path = to.path().join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name == "lm_head.weight") {
        let _ = tensor.get(2).get(1).fill_(1e300);
    }
    Tensor::write_safetensors(&tensors, &path).unwrap();
    let message = Model::load(to.path(), device()).unwrap_err().to_string();
    let needle = "`lm_head.weight` is inf at [2, 1] (1 of its 224 numbers are not finite)";
    assert!(message.contains(needle), "{message}");
}
