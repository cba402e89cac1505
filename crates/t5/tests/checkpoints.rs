//! Checkpoint folders: what is written is what is read, every form that exists is opened, and what cannot be opened says
//! what, where and what to do.
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

use common::{Golden, close, device, difference, folder, pass, tolerance};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use t5::checkpoint::{load_tensors, save_tensors};
use t5::{Activation, Compute, Config, FeedForwardKind, Model};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A copy of a golden checkpoint that may be damaged.
fn copy(name: &str) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in names(&folder(name)) {
        if file != "expected.safetensors" {
            fs::copy(folder(name).join(&file), to.path().join(&file)).unwrap();
        }
    }
    to
}

/// Changes fields of a JSON file.
fn edit(path: &Path, change: &dyn Fn(&mut serde_json::Map<String, Value>)) {
    let mut fields: serde_json::Map<String, Value> =
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut fields);
    fs::write(path, serde_json::to_vec(&fields).unwrap()).unwrap();
}

type Change<'a> = &'a dyn Fn(&mut Vec<(String, Tensor)>);

/// Changes the tensors of `model.safetensors`.
fn retensor(folder: &Path, change: Change<'_>) {
    let path = folder.join("model.safetensors");
    let mut tensors = load_tensors(&path).unwrap();
    change(&mut tensors);
    save_tensors(&path, &tensors).unwrap();
}

fn same_weights(left: &Model, right: &Model) {
    assert_eq!(left.parameters().len(), right.parameters().len());
    for ((name, left), (other, right)) in left.parameters().iter().zip(right.parameters()) {
        assert_eq!(name, other);
        assert!(left.equal(right), "{name}");
    }
}

#[test]
fn what_is_saved_loads_and_saves_again_as_the_same_bytes() {
    for name in ["v1_0", "v1_1", "sharded", "bfloat16"] {
        for bytes_max in [u64::MAX, 20_000] {
            let model = Model::load(&folder(name), device()).unwrap();
            let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            model.save(first.path(), bytes_max).unwrap();
            let again = Model::load(first.path(), device()).unwrap();
            same_weights(&model, &again);
            again.save(second.path(), bytes_max).unwrap();
            assert_eq!(names(first.path()), names(second.path()));
            assert_eq!(names(first.path()).contains(&"model.safetensors".to_owned()), bytes_max == u64::MAX);
            for file in names(first.path()) {
                assert!(
                    fs::read(first.path().join(&file)).unwrap()
                        == fs::read(second.path().join(&file)).unwrap(),
                    "{name} {file}"
                );
                let size = fs::metadata(first.path().join(&file)).unwrap().len();
                assert!(bytes_max == u64::MAX || size < 30_000, "{file}: {size} bytes");
            }
        }
    }
}

#[test]
fn shards_hold_what_the_whole_file_holds() {
    same_weights(
        &Model::load(&folder("sharded"), device()).unwrap(),
        &Model::load(&folder("v1_0"), device()).unwrap(),
    );
    let index: Value =
        serde_json::from_slice(&fs::read(folder("sharded").join("model.safetensors.index.json")).unwrap())
            .unwrap();
    // Ours says the same of its files as theirs does.
    let model = Model::load(&folder("sharded"), device()).unwrap();
    let to = tempfile::tempdir().unwrap();
    model.save(to.path(), 20_000).unwrap();
    let ours: Value =
        serde_json::from_slice(&fs::read(to.path().join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(ours["metadata"]["total_size"], index["metadata"]["total_size"]);
    let keys = |index: &Value| {
        let mut keys: Vec<String> = index["weight_map"].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&ours), keys(&index));
}

#[test]
fn bfloat16_weights_are_widened_to_float32_and_saved_so() {
    let model = Model::load(&folder("bfloat16"), device()).unwrap();
    let exact = Model::load(&folder("v1_1"), device()).unwrap();
    for ((name, rounded), (_, exact)) in model.parameters().iter().zip(exact.parameters()) {
        assert_eq!(rounded.kind(), Kind::Float, "{name}");
        assert!(rounded.equal(&exact.to_kind(Kind::BFloat16).to_kind(Kind::Float)), "{name}");
    }
    let to = tempfile::tempdir().unwrap();
    model.save(to.path(), u64::MAX).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(to.path().join("config.json")).unwrap()).unwrap();
    // Or `transformers` would round what training has learned since.
    assert_eq!(config["dtype"], "float32");
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config.get("scale_decoder_outputs"), None);
    assert_eq!(config["dense_act_fn"], "gelu_new");
    assert_eq!(config["is_gated_act"], true);
    assert_eq!(config["initializer_factor"], 1.0, "what is not known here is kept");
}

/// Version 5 of `transformers` writes `tie_word_embeddings: true` into every T5; older ones, and what is published, do not.
#[test]
fn either_way_of_saying_v1_1_is_understood() {
    let check = |name: &str, fields: Value, scaled: bool| {
        let folder = copy(name);
        edit(&folder.path().join("config.json"), &|config| {
            config.remove("tie_word_embeddings");
            config.remove("scale_decoder_outputs");
            config.extend(fields.as_object().unwrap().clone());
        });
        let model = Model::load(folder.path(), device()).unwrap();
        assert_eq!(model.config().scale_decoder_outputs, scaled, "{fields}");
        assert_eq!(model.config().own_head, !scaled, "{fields}");
        let golden = Golden::open(name);
        let logits = model.forward(&golden.batch(), &pass(Compute::Float32)).unwrap();
        close(&format!("{name} {fields}"), &logits, &golden.tensor("logits"), tolerance());
    };
    check("v1_0", json!({}), true);
    check("v1_0", json!({"tie_word_embeddings": true}), true);
    check("v1_0", json!({"tie_word_embeddings": true, "scale_decoder_outputs": true}), true);
    check("v1_1", json!({"tie_word_embeddings": false}), false);
    check("v1_1", json!({"tie_word_embeddings": true, "scale_decoder_outputs": false}), false);
    check("v1_1", json!({"tie_word_embeddings": false, "scale_decoder_outputs": false}), false);
    check("v1_1", json!({"model_type": "mt5"}), false);
    check("v1_1", json!({"model_type": "mt5", "tie_word_embeddings": true}), false);
    check("v1_1", json!({"model_type": "mt5", "scale_decoder_outputs": true}), false);
}

#[test]
fn a_head_that_differs_from_a_tied_embedding_contradicts_the_configuration() {
    let find = |tensors: &[(String, Tensor)], name: &str| {
        tensors.iter().find(|(known, _)| known == name).unwrap().1.copy()
    };
    let folder = copy("v1_0");
    retensor(folder.path(), &|tensors| {
        let embedding = find(tensors, "shared.weight");
        for name in ["lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
            tensors.push((name.to_owned(), embedding.copy()));
        }
        // A tensor that the first published checkpoints hold, and no code reads.
        let unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
        tensors.push((unused.to_owned(), Tensor::zeros([8, 3], (Kind::Float, Device::Cpu))));
    });
    same_weights(
        &Model::load(folder.path(), device()).unwrap(),
        &Model::load(&common::folder("v1_0"), device()).unwrap(),
    );
    // Under another name alone, the embedding is found too.
    retensor(folder.path(), &|tensors| tensors.retain(|(name, _)| name != "shared.weight"));
    same_weights(
        &Model::load(folder.path(), device()).unwrap(),
        &Model::load(&common::folder("v1_0"), device()).unwrap(),
    );
    retensor(folder.path(), &|tensors| tensors.retain(|(name, _)| !name.contains("embed_tokens")));
    same_weights(
        &Model::load(folder.path(), device()).unwrap(),
        &Model::load(&common::folder("v1_0"), device()).unwrap(),
    );
    retensor(folder.path(), &|tensors| {
        let embedding = find(tensors, "lm_head.weight");
        tensors.push(("shared.weight".to_owned(), embedding));
    });
    retensor(folder.path(), &|tensors| {
        let head = &mut tensors.iter_mut().find(|(name, _)| name == "lm_head.weight").unwrap().1;
        *head = &*head + 1e-3;
    });
    let said = Model::load(folder.path(), device()).unwrap_err().to_string();
    for needle in [folder.path().to_str().unwrap(), "lm_head.weight", "set tie_word_embeddings to false"] {
        assert!(said.contains(needle), "{said}");
    }
    // What it advises works: a head of its own, unscaled or scaled, or none.
    let advised = |fields: Value, own_head: bool, scaled: bool| {
        edit(&folder.path().join("config.json"), &|config| {
            config.extend(fields.as_object().unwrap().clone())
        });
        let model = Model::load(folder.path(), device()).unwrap();
        assert_eq!(
            (model.config().own_head, model.config().scale_decoder_outputs),
            (own_head, scaled),
            "{fields}"
        );
    };
    advised(json!({"tie_word_embeddings": false}), true, false);
    advised(json!({"tie_word_embeddings": false, "scale_decoder_outputs": true}), true, true);
    retensor(folder.path(), &|tensors| tensors.retain(|(name, _)| name != "lm_head.weight"));
    advised(json!({"tie_word_embeddings": true, "scale_decoder_outputs": null}), false, true);
}

/// Version 5 of `transformers` ties the head of a v1.1 that it began from scratch, and does not write it. Versions before 5
/// scale what is tied: what we save holds the head as well, so that they compute the same.
#[test]
fn a_v1_1_that_was_written_without_its_head_is_tied_and_not_scaled() {
    let folder = copy("bfloat16");
    retensor(folder.path(), &|tensors| tensors.retain(|(name, _)| name != "lm_head.weight"));
    let model = Model::load(folder.path(), device()).unwrap();
    assert_eq!((model.config().own_head, model.config().scale_decoder_outputs), (false, false));
    assert!(!model.parameters().iter().any(|(name, _)| name == "lm_head.weight"), "it learns as one");
    let to = tempfile::tempdir().unwrap();
    model.save(to.path(), u64::MAX).unwrap();
    same_weights(&model, &Model::load(to.path(), device()).unwrap());
    let config: Value = serde_json::from_slice(&fs::read(to.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
    let saved = load_tensors(&to.path().join("model.safetensors")).unwrap();
    let weight = |name: &str| &saved.iter().find(|(known, _)| known == name).unwrap().1;
    assert!(weight("lm_head.weight").equal(weight("shared.weight")));
}

#[test]
fn a_folder_that_held_another_form_is_read_as_what_was_saved_last() {
    let (first, second) = (Golden::open("v1_0").model, Golden::open("v1_1").model);
    let folder = tempfile::tempdir().unwrap();
    first.save(folder.path(), u64::MAX).unwrap();
    second.save(folder.path(), 20_000).unwrap();
    same_weights(&second, &Model::load(folder.path(), device()).unwrap());
    first.save(folder.path(), u64::MAX).unwrap();
    same_weights(&first, &Model::load(folder.path(), device()).unwrap());
    assert!(!names(folder.path()).contains(&"model.safetensors.index.json".to_owned()));
}

/// `damage` is done to a good copy; opening it must say all of `needles`, and where it was.
fn refused(name: &str, damage: &dyn Fn(&Path), needles: &[&str]) {
    let folder = copy(name);
    damage(folder.path());
    let said = Model::load(folder.path(), device()).expect_err(needles[0]).to_string();
    assert!(said.starts_with(folder.path().to_str().unwrap()), "{said}");
    for needle in needles {
        assert!(said.contains(needle), "`{needle}` is not in: {said}");
    }
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    let tensors = |change: Change<'_>, needles: &[&str]| {
        refused("v1_1", &|folder| retensor(folder, change), needles);
    };
    let other = "is it the checkpoint of another model?";
    for name in [
        "shared.weight",
        "lm_head.weight",
        "encoder.final_layer_norm.weight",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder.block.0.layer.1.EncDecAttention.k.weight",
    ] {
        tensors(
            &|tensors| tensors.retain(|(known, _)| known != name),
            &[&format!("has no tensor `{name}`"), other],
        );
    }
    tensors(
        &|tensors| {
            tensors.push(("encoder.block.7.layer.0.SelfAttention.q.weight".into(), Tensor::from(1.0_f32)))
        },
        &["holds the unknown tensor `encoder.block.7.layer.0.SelfAttention.q.weight`", other],
    );
    tensors(
        &|tensors| {
            tensors.iter_mut().filter(|(name, _)| name.ends_with("wi_0.weight")).for_each(|(_, tensor)| {
                *tensor = tensor.transpose(0, 1).contiguous();
            })
        },
        &["DenseReluDense.wi_0.weight` has shape [24, 32], and config.json asks for [32, 24]"],
    );
    let integers = |folder: &Path| {
        let path = folder.join("model.safetensors");
        let tensors: Vec<(String, Tensor)> =
            load_tensors(&path)
                .unwrap()
                .into_iter()
                .map(|(name, tensor)| {
                    if name == "shared.weight" { (name, tensor.to_kind(Kind::Int64)) } else { (name, tensor) }
                })
                .collect();
        Tensor::write_safetensors(&tensors, &path).unwrap();
    };
    refused(
        "v1_1",
        &integers,
        &["tensor `shared.weight` is I64: float64, float32, bfloat16 and float16 weights are read"],
    );
}

#[test]
fn files_that_are_not_whole_are_named() {
    const WEIGHTS: &str = "model.safetensors";
    let cut = |length: usize| {
        move |folder: &Path| {
            let bytes = fs::read(folder.join(WEIGHTS)).unwrap();
            assert!(length < bytes.len());
            fs::write(folder.join(WEIGHTS), &bytes[..length]).unwrap();
        }
    };
    let damaged = ["model.safetensors", "is not a whole safetensors file", "copy it again"];
    for length in [0, 4, 100, 60_000] {
        refused("v1_1", &cut(length), &damaged);
    }
    refused("v1_1", &|folder| fs::write(folder.join(WEIGHTS), [0xA5; 4096]).unwrap(), &damaged);
    // A header that claims more than memory.
    refused("v1_1", &|folder| fs::write(folder.join(WEIGHTS), u64::MAX.to_le_bytes()).unwrap(), &damaged);
    let absent = |file: &'static str| move |folder: &Path| fs::remove_file(folder.join(file)).unwrap();
    let folder_holds = "a checkpoint folder holds config.json and model.safetensors";
    refused("v1_1", &absent("config.json"), &["has no config.json", folder_holds]);
    refused("v1_1", &absent(WEIGHTS), &["has no model.safetensors", folder_holds]);
    let said = Model::load(&folder("nowhere"), device()).unwrap_err().to_string();
    assert!(said.contains("nowhere") && said.contains("config.json"), "{said}");
}

#[test]
fn an_index_that_cannot_be_followed_is_named() {
    const INDEX: &str = "model.safetensors.index.json";
    let index = |change: &dyn Fn(&mut Value), needles: &[&str]| {
        refused(
            "sharded",
            &|folder| {
                edit(&folder.join(INDEX), &|fields| {
                    let mut map = fields["weight_map"].take();
                    change(&mut map);
                    fields["weight_map"] = map;
                })
            },
            needles,
        );
    };
    index(
        &|map| map["shared.weight"] = "model-00009-of-00003.safetensors".into(),
        &[INDEX, "names the file `model-00009-of-00003.safetensors`, which is absent"],
    );
    let secret = "names the file `../secret.safetensors` outside the folder";
    index(&|map| map["shared.weight"] = "../secret.safetensors".into(), &[INDEX, secret]);
    for name in ["/etc/passwd", "..", "sub/model.safetensors", ""] {
        index(&|map| map["shared.weight"] = name.into(), &[INDEX, "outside the folder"]);
    }
    index(&|map| *map = json!([1, 2]), &[INDEX, "no weight_map"]);
    index(&|map| *map = json!({}), &["has no tensor `decoder."]);
    refused("sharded", &|folder| fs::write(folder.join(INDEX), "{").unwrap(), &[INDEX, "copy it again"]);
}

/// A configuration with these fields set must be refused.
fn misconfigured(fields: Value, needles: &[&str]) {
    let damage = |folder: &Path| {
        edit(&folder.join("config.json"), &|config| config.extend(fields.as_object().unwrap().clone()));
    };
    refused("v1_1", &damage, needles);
}

#[test]
fn configurations_of_something_else_are_named() {
    let check = misconfigured;
    check(
        json!({"model_type": "bart"}),
        &["config.json: model_type: is `bart`: only t5 and mt5 checkpoints are read"],
    );
    check(json!({"model_type": 5}), &["model_type: is 5"]);
    check(
        json!({"feed_forward_proj": "gated-mish", "dense_act_fn": null}),
        &[
            "config.json: feed_forward_proj: names the activation `mish`: relu, gelu, gelu_new and silu are computed",
        ],
    );
    check(
        json!({"dense_act_fn": "quick_gelu"}),
        &["config.json: dense_act_fn: names the activation `quick_gelu`: relu"],
    );
    check(json!({"dense_act_fn": ["silu"]}), &["dense_act_fn: is [\"silu\"]: it must be a text in quotes"]);
    check(json!({"is_gated_act": "yes"}), &["is_gated_act: is \"yes\": it must be true or false"]);
    check(json!({"feed_forward_proj": 7}), &["feed_forward_proj: is 7"]);
    check(
        json!({"tie_word_embeddings": "yes"}),
        &["tie_word_embeddings: is \"yes\": it must be true or false"],
    );
    check(
        json!({"scale_decoder_outputs": "sometimes"}),
        &["scale_decoder_outputs: is \"sometimes\": it must be true or false"],
    );
    for text in [&b""[..], b"{", b"[1, 2]", b"\x00\x01"] {
        let damage = |folder: &Path| fs::write(folder.join("config.json"), text).unwrap();
        refused("v1_1", &damage, &["config.json: file: is not a JSON object"]);
    }
    refused(
        "v1_1",
        &|folder| fs::write(folder.join("config.json"), [0xFF, 0xFE]).unwrap(),
        &["config.json: "],
    );
}

#[test]
fn numbers_that_no_model_has_are_named() {
    let check = misconfigured;
    for field in ["d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size"] {
        check(json!({field: null}), &[&format!("config.json: {field}: is missing")]);
        for value in [json!(0), json!(-4), json!(1.5), json!("512"), json!(1_i64 << 62), json!(1e300)] {
            let needle = format!("{field}: is {value}: it must be a whole number from 1 to ");
            check(json!({field: value}), &[&needle]);
        }
    }
    // As many blocks as any other count may be: only their names would fill the memory.
    for field in ["num_layers", "num_decoder_layers"] {
        let needle = format!("{field}: is 16777216: it must be a whole number from 1 to 1024");
        check(json!({field: 1 << 24}), &[&needle]);
    }
    // The most that is allowed is refused for what the files hold, at once.
    check(
        json!({"num_layers": 1024, "num_decoder_layers": 1024}),
        &["has no tensor `decoder.block.1.layer.0."],
    );
    check(json!({"d_model": 1 << 24, "vocab_size": 1 << 24, "d_ff": 1 << 24}), &["asks for [16, 16777216]"]);
    check(
        json!({"relative_attention_num_buckets": 3}),
        &["relative_attention_num_buckets: is 3: at least 4"],
    );
    let beyond = "relative_attention_max_distance: is 16: it must lie beyond";
    check(json!({"relative_attention_max_distance": 16}), &[beyond]);
    check(json!({"dropout_rate": 1.0}), &["dropout_rate: is 1.0: it must lie between 0 and 1"]);
    check(json!({"layer_norm_epsilon": -1e-6}), &["layer_norm_epsilon: is -1e-6"]);
    for field in ["pad_token_id", "eos_token_id", "decoder_start_token_id"] {
        check(json!({field: -1}), &[&format!("{field}: is -1: it must be the id of a token")]);
        check(json!({field: 80}), &[&format!("{field}: is 80, and the vocabulary ends at 79")]);
    }
    check(json!({"eos_token_id": [1, 80]}), &["eos_token_id: is 80, and the vocabulary ends at 79"]);
    check(json!({"eos_token_id": [1, "2"]}), &["eos_token_id: is \"2\": it must be the id of a token"]);
}

#[test]
fn a_snapshot_brings_the_weights_back() {
    let mut model = Golden::open("v1_0").model;
    let kept = model.snapshot();
    tch::no_grad(|| {
        for (_, tensor) in model.parameters() {
            let _ = tensor.shallow_clone().g_mul_scalar_(2.0);
        }
    });
    assert!(difference(&model.parameters()[0].1, &kept[0].1) > 0.1);
    model.copy_from(&kept).unwrap();
    same_weights(&model, &Golden::open("v1_0").model);
    let said = model.copy_from(&[("elsewhere".to_owned(), Tensor::from(1.0_f32))]).unwrap_err().to_string();
    assert!(said.contains("no weight `elsewhere`"), "{said}");
    let said =
        model.copy_from(&[("shared.weight".to_owned(), Tensor::from(1.0_f32))]).unwrap_err().to_string();
    assert!(said.contains("`shared.weight` has another shape"), "{said}");
}

/// Every combination of an activation, a gate, and a head; ids that are not T5's.
fn forms() -> Vec<Config> {
    let mut forms = Vec::new();
    for activation in [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        for gated in [false, true] {
            for (own_head, scale_decoder_outputs) in [(false, true), (true, false), (true, true)] {
                forms.push(Config {
                    feed_forward: FeedForwardKind { activation, gated },
                    own_head,
                    scale_decoder_outputs,
                    pad_token_id: 3,
                    eos_token_id: 5,
                    stop_token_ids: if gated { vec![7, 9] } else { Vec::new() },
                    decoder_start_token_id: 4,
                    ..t5::Size::Tiny.config(64)
                });
            }
        }
    }
    forms
}

#[test]
fn a_configuration_reads_back_what_it_wrote() {
    for config in forms() {
        let folder = tempfile::tempdir().unwrap();
        // Fields of the file that it was read from may say otherwise.
        let rest = json!({"dense_act_fn": "gelu", "is_gated_act": false, "scale_decoder_outputs": false});
        let stale = Config { rest: rest.as_object().unwrap().clone(), ..config.clone() };
        fs::write(folder.path().join("config.json"), stale.to_json().to_string()).unwrap();
        let again = Config::load(folder.path()).unwrap();
        assert_eq!(Config { rest: config.rest.clone(), ..again }, config);
    }
}

/// `transformers` generates with the ids of generation_config.json, and trains with those of config.json.
#[test]
fn the_two_configurations_must_agree_on_how_a_text_starts_and_ends() {
    let check = |config: Value, generation: Value| -> Result<(i64, Vec<i64>, i64), String> {
        let folder = copy("v1_1");
        edit(&folder.path().join("config.json"), &|fields| {
            fields.extend(config.as_object().unwrap().clone())
        });
        fs::write(folder.path().join("generation_config.json"), generation.to_string()).unwrap();
        let read = Config::load(folder.path()).map_err(|error| error.to_string())?;
        let ends: Vec<i64> = (0..80).filter(|id| read.ends(*id)).collect();
        Ok((read.eos_token_id, ends, read.decoder_start_token_id))
    };
    let null = json!({"eos_token_id": null, "decoder_start_token_id": null});
    assert_eq!(check(json!({}), json!({})), Ok((1, vec![1], 0)));
    assert_eq!(check(json!({"eos_token_id": [1]}), json!({"eos_token_id": 1})), Ok((1, vec![1], 0)));
    assert_eq!(check(json!({"eos_token_id": [2, 1]}), null.clone()), Ok((2, vec![1, 2], 0)));
    assert_eq!(check(json!({}), json!({"eos_token_id": [7, 1]})), Ok((1, vec![1, 7], 0)));
    let generation = json!({"eos_token_id": [2, 3], "decoder_start_token_id": 4});
    assert_eq!(check(null, generation), Ok((2, vec![2, 3], 4)));
    let refused = |generation: Value, needle: &str| {
        let message = check(json!({}), generation).unwrap_err();
        assert!(message.contains(needle), "`{needle}` is not in: {message}");
    };
    refused(
        json!({"eos_token_id": 2}),
        "generation_config.json: eos_token_id: is [2], and config.json says 1: make the two files agree",
    );
    refused(
        json!({"decoder_start_token_id": 2}),
        "generation_config.json: decoder_start_token_id: is 2, and config.json says 0: make the two files agree",
    );
    refused(json!([1]), "generation_config.json: file: is not a JSON object");
}
