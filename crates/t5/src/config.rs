//! A model's shape, as `config.json` has it.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The feed-forward layer's form: `wo(activation(wi(x)))`, or `wo(activation(wi_0(x)) * wi_1(x))` where it is gated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeedForwardKind {
    /// What the first projection goes through.
    pub activation: Activation,
    /// Whether a second projection gates it.
    pub gated: bool,
}

impl FeedForwardKind {
    /// v1.0.
    pub const RELU: Self = Self { activation: Activation::Relu, gated: false };
    /// v1.1, mT5 and Flan.
    pub const GATED_GELU: Self = Self { activation: Activation::GeluTanh, gated: true };

    /// Names of the input projections, as checkpoints have them.
    pub(crate) fn inputs(self) -> &'static [&'static str] {
        if self.gated { &["wi_0", "wi_1"] } else { &["wi"] }
    }

    /// `feed_forward_proj` as config.json writes it. `gated-gelu` is what v1.1 calls the tanh form.
    fn projection(self) -> String {
        match (self.gated, self.activation) {
            (true, Activation::GeluTanh) => "gated-gelu".to_owned(),
            (true, activation) => format!("gated-{}", activation.name()),
            (false, activation) => activation.name().to_owned(),
        }
    }
}

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// GELU by the error function.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
    /// `x * sigmoid(x)`: UL2 and Flan-UL2.
    Silu,
}

impl Activation {
    /// The activation that `transformers` has under this name.
    fn of(name: &str) -> Option<Self> {
        match name {
            "relu" => Some(Self::Relu),
            "gelu" | "gelu_python" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
                Some(Self::GeluTanh)
            }
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }

    /// Its name in `transformers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Silu => "silu",
        }
    }
}

/// The named sizes of a student that starts from scratch, in v1.1's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// For tests: a few hundred thousand parameters.
    Tiny,
    /// Some millions: small tasks on a laptop.
    Mini,
    /// T5 v1.1 small.
    Small,
    /// T5 v1.1 base.
    Base,
    /// T5 v1.1 large.
    Large,
}

/// A model's shape. Fields are named as in `config.json` where it has them; fields that are not known here are kept and
/// written back.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub d_model: i64,
    /// Width of one attention head.
    pub d_kv: i64,
    /// Width of the feed-forward layer.
    pub d_ff: i64,
    /// Encoder blocks.
    pub num_layers: i64,
    /// Decoder blocks.
    pub num_decoder_layers: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Rows of the embedding.
    pub vocab_size: i64,
    /// Buckets of the relative position bias.
    pub relative_attention_num_buckets: i64,
    /// Distance beyond which all positions share a bucket.
    pub relative_attention_max_distance: i64,
    /// Dropout while training.
    pub dropout_rate: f64,
    /// Epsilon of the norm.
    pub layer_norm_epsilon: f64,
    /// Form of the feed-forward layer.
    pub feed_forward: FeedForwardKind,
    /// Whether the decoder reads an embedding of its own (`decoder.embed_tokens`); else it reads the encoder's. The weight
    /// files say it.
    pub own_decoder_embedding: bool,
    /// Whether the output projection (`lm_head`) is a weight of its own; else it is the embedding. The weight files say it.
    pub own_head: bool,
    /// Whether the decoder's output is scaled by d_model^-0.5 before the output projection: v1.0.
    pub scale_decoder_outputs: bool,
    /// The id of padding.
    pub pad_token_id: i64,
    /// The id that ends a sequence: targets end with it, and what the tokenizer encodes.
    pub eos_token_id: i64,
    /// Further ids at which generation stops, where the configuration lists several.
    pub stop_token_ids: Vec<i64>,
    /// The id that the decoder starts with.
    pub decoder_start_token_id: i64,
    /// Everything else that config.json says.
    pub rest: Map<String, Value>,
}

/// Largest value of any width or count: beyond it a file is damaged, not a model.
const FIELD_MAX: i64 = 1 << 24;
/// Most blocks of a stack: the list of tensors to look for grows with them, whatever the files hold.
const LAYERS_MAX: i64 = 1 << 10;
/// Most ids at which generation stops.
const IDS_MAX: usize = 64;
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const GENERATION: &str = "generation_config.json";
/// Version 5 of `transformers` says with this field whether the decoder's output is scaled, and writes
/// `tie_word_embeddings: true` into every T5; earlier versions know `tie_word_embeddings` alone.
const SCALED: &str = "scale_decoder_outputs";
/// Fields that are written for what the model computes, whatever the file said that it was read from.
const REPLACED: [&str; 2] = [SCALED, "torch_dtype"];

/// What config.json says about the output projection; the weight files say the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// `tie_word_embeddings: false`: the files hold a head of its own.
    Own,
    /// As the files have it: mT5, and every T5 that version 5 of `transformers` wrote.
    AsStored,
    /// Tied: a head that differs from the embedding contradicts it.
    Tied,
}

impl Size {
    /// The shape of this size over a vocabulary.
    pub fn config(self, vocab_size: i64) -> Config {
        // (d_model, d_kv, d_ff, layers, heads)
        let (d_model, d_kv, d_ff, layers, heads) = match self {
            Self::Tiny => (64, 16, 128, 2, 4),
            Self::Mini => (192, 32, 512, 3, 6),
            Self::Small => (512, 64, 1024, 8, 6),
            Self::Base => (768, 64, 2048, 12, 12),
            Self::Large => (1024, 64, 2816, 24, 16),
        };
        Config {
            d_model,
            d_kv,
            d_ff,
            num_layers: layers,
            num_decoder_layers: layers,
            num_heads: heads,
            vocab_size,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            feed_forward: FeedForwardKind::GATED_GELU,
            own_decoder_embedding: false,
            own_head: true,
            scale_decoder_outputs: false,
            pad_token_id: 0,
            eos_token_id: 1,
            stop_token_ids: Vec::new(),
            decoder_start_token_id: 0,
            rest: Map::new(),
        }
    }
}

impl Config {
    /// Width of all heads together.
    pub fn inner(&self) -> i64 {
        self.num_heads * self.d_kv
    }

    /// Whether generation stops at `token`.
    pub fn ends(&self, token: i64) -> bool {
        token == self.eos_token_id || self.stop_token_ids.contains(&token)
    }

    /// Reads `config.json` of a checkpoint folder, and `generation_config.json` where there is one: its ids are those that
    /// `transformers` generates with. Without the weight files, an own head is what `tie_word_embeddings` says.
    ///
    /// # Errors
    /// A file is absent, is not JSON, does not describe a T5, or contradicts the other: the field is named.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::read(folder).map(|(config, _)| config)
    }

    pub(crate) fn read(folder: &Path) -> Result<(Self, Head)> {
        let path = folder.join(CONFIG);
        let fields = match read_fields(&path)? {
            Some(fields) => fields,
            None if folder.is_dir() => {
                return Err(Error::Incomplete { path: folder.to_owned(), missing: CONFIG });
            }
            None => return Err(Error::Io { path, source: std::io::ErrorKind::NotFound.into() }),
        };
        let generation = folder.join(GENERATION);
        let generation = match read_fields(&generation)? {
            Some(fields) => Some(ConfigFields { fields, path: &generation }.generation()?),
            None => None,
        };
        ConfigFields { fields, path: &path }.config(generation)
    }

    /// Whether the head is written to a checkpoint: also where it is the embedding, but unscaled. Versions of
    /// `transformers` before 5 scale whatever is tied, and version 5 ties a head that equals the embedding.
    pub(crate) fn stores_head(&self) -> bool {
        self.own_head || !self.scale_decoder_outputs
    }

    /// The fields of `config.json`: every version of `transformers` that can compute this model reads it from them.
    pub fn to_json(&self) -> Value {
        let mut fields = self.rest.clone();
        fields.retain(|name, _| !REPLACED.contains(&name.as_str()));
        let tied = !self.stores_head();
        if self.scale_decoder_outputs != tied {
            fields.insert(SCALED.to_owned(), self.scale_decoder_outputs.into());
        }
        let ends: Value = if self.stop_token_ids.is_empty() {
            self.eos_token_id.into()
        } else {
            [&[self.eos_token_id], self.stop_token_ids.as_slice()].concat().into()
        };
        for (name, value) in [
            ("architectures", serde_json::json!(["T5ForConditionalGeneration"])),
            ("model_type", "t5".into()),
            ("is_encoder_decoder", true.into()),
            ("dtype", "float32".into()),
            ("d_model", self.d_model.into()),
            ("d_kv", self.d_kv.into()),
            ("d_ff", self.d_ff.into()),
            ("num_layers", self.num_layers.into()),
            ("num_decoder_layers", self.num_decoder_layers.into()),
            ("num_heads", self.num_heads.into()),
            ("vocab_size", self.vocab_size.into()),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets.into()),
            ("relative_attention_max_distance", self.relative_attention_max_distance.into()),
            ("dropout_rate", self.dropout_rate.into()),
            ("layer_norm_epsilon", self.layer_norm_epsilon.into()),
            ("feed_forward_proj", self.feed_forward.projection().into()),
            ("dense_act_fn", self.feed_forward.activation.name().into()),
            ("is_gated_act", self.feed_forward.gated.into()),
            ("tie_word_embeddings", tied.into()),
            ("pad_token_id", self.pad_token_id.into()),
            ("eos_token_id", ends),
            ("decoder_start_token_id", self.decoder_start_token_id.into()),
        ] {
            fields.insert(name.to_owned(), value);
        }
        Value::Object(fields)
    }
}

/// The fields of a JSON file; `None` where there is no such file.
fn read_fields(path: &Path) -> Result<Option<Map<String, Value>>> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| Error::Config {
            path: path.to_owned(),
            field: "file",
            message: format!("is not a JSON object: {error}"),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

/// The ids that a generation_config.json names.
struct Generation {
    ends: Vec<i64>,
    start: Option<i64>,
    path: PathBuf,
}

struct ConfigFields<'a> {
    fields: Map<String, Value>,
    path: &'a Path,
}

impl ConfigFields<'_> {
    fn generation(&self) -> Result<Generation> {
        Ok(Generation {
            ends: self.ids("eos_token_id")?,
            start: self.id("decoder_start_token_id")?,
            path: self.path.to_owned(),
        })
    }

    fn config(mut self, generation: Option<Generation>) -> Result<(Config, Head)> {
        let kind = self.word("model_type")?.unwrap_or_else(|| "t5".to_owned());
        if !matches!(kind.as_str(), "t5" | "mt5") {
            return Err(self.bad("model_type", format!("is `{kind}`: only t5 and mt5 checkpoints are read")));
        }
        let num_layers = self.count("num_layers", None, LAYERS_MAX)?;
        let (head, scale_decoder_outputs) = self.head(&kind)?;
        let pad_token_id = self.id("pad_token_id")?.unwrap_or(0);
        let (eos_token_id, stop_token_ids) = self.ends(generation.as_ref())?;
        let config = Config {
            d_model: self.count("d_model", None, FIELD_MAX)?,
            d_kv: self.count("d_kv", None, FIELD_MAX)?,
            d_ff: self.count("d_ff", None, FIELD_MAX)?,
            num_layers,
            num_decoder_layers: self.count("num_decoder_layers", Some(num_layers), LAYERS_MAX)?,
            num_heads: self.count("num_heads", None, FIELD_MAX)?,
            vocab_size: self.count("vocab_size", None, FIELD_MAX)?,
            relative_attention_num_buckets: self.count(
                "relative_attention_num_buckets",
                Some(32),
                FIELD_MAX,
            )?,
            relative_attention_max_distance: self.count(
                "relative_attention_max_distance",
                Some(128),
                FIELD_MAX,
            )?,
            dropout_rate: self.fraction("dropout_rate", 0.1)?,
            layer_norm_epsilon: self.fraction("layer_norm_epsilon", 1e-6)?,
            feed_forward: self.feed_forward(&kind)?,
            own_decoder_embedding: false,
            own_head: head == Head::Own,
            scale_decoder_outputs,
            pad_token_id,
            eos_token_id,
            stop_token_ids,
            decoder_start_token_id: self.start(generation.as_ref())?.unwrap_or(pad_token_id),
            rest: std::mem::take(&mut self.fields),
        };
        self.check(&config)?;
        Ok((config, head))
    }

    /// As `transformers` computes it: `dense_act_fn` and `is_gated_act` win over `feed_forward_proj`, and `gated-gelu`
    /// alone means the tanh form.
    fn feed_forward(&self, kind: &str) -> Result<FeedForwardKind> {
        let default = if kind == "mt5" { "gated-gelu" } else { "relu" };
        let projection = self.word("feed_forward_proj")?.unwrap_or_else(|| default.to_owned());
        let (gated, named) = match projection.split_once('-') {
            Some(("gated", "gelu")) => (true, "gelu_new"),
            Some(("gated", named)) => (true, named),
            Some(_) | None => (false, projection.as_str()),
        };
        let gated = self.flag("is_gated_act")?.unwrap_or(gated);
        let dense = self.word("dense_act_fn")?;
        let (field, name) = match &dense {
            Some(dense) => ("dense_act_fn", dense.as_str()),
            None => ("feed_forward_proj", named),
        };
        match Activation::of(name) {
            Some(activation) => Ok(FeedForwardKind { activation, gated }),
            None => {
                let known = "relu, gelu, gelu_new and silu are computed, gated or not";
                Err(self.bad(field, format!("names the activation `{name}`: {known}")))
            }
        }
    }

    /// What version 5 of `transformers` means by the two fields. mT5 never scales; of T5, `scale_decoder_outputs` says it,
    /// else `tie_word_embeddings`.
    fn head(&self, kind: &str) -> Result<(Head, bool)> {
        let (scaled, tied) = (self.flag(SCALED)?, self.flag("tie_word_embeddings")?);
        let head = match (tied, scaled) {
            (Some(false), _) => Head::Own,
            (_, Some(_)) => Head::AsStored,
            (_, None) if kind == "mt5" => Head::AsStored,
            (_, None) => Head::Tied,
        };
        Ok((head, kind != "mt5" && scaled.unwrap_or(tied != Some(false))))
    }

    /// The id that ends a target, and the others at which generation stops.
    fn ends(&self, generation: Option<&Generation>) -> Result<(i64, Vec<i64>)> {
        let field = "eos_token_id";
        let trained = self.ids(field)?;
        let mut stops = generation.map_or_else(Vec::new, |generation| generation.ends.clone());
        if stops.is_empty() {
            stops.clone_from(&trained);
        }
        let end = trained.first().or(stops.first()).copied().unwrap_or(1);
        match generation {
            Some(generation) if !stops.is_empty() && !stops.contains(&end) => {
                Err(contradiction(generation, field, &format!("{stops:?}"), end))
            }
            _ => Ok((end, stops.into_iter().filter(|stop| *stop != end).collect())),
        }
    }

    /// The id that the decoder starts with, where a file says it.
    fn start(&self, generation: Option<&Generation>) -> Result<Option<i64>> {
        let field = "decoder_start_token_id";
        let trained = self.id(field)?;
        match (trained, generation.and_then(|generation| Some((generation, generation.start?)))) {
            (Some(trained), Some((generation, start))) if trained != start => {
                Err(contradiction(generation, field, &start.to_string(), trained))
            }
            (trained, generated) => Ok(trained.or(generated.map(|(_, start)| start))),
        }
    }

    /// What fields say about each other.
    fn check(&self, config: &Config) -> Result<()> {
        let (buckets, farthest) =
            (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        if buckets < 4 {
            let message = format!("is {buckets}: at least 4, or no distance has a bucket of its own");
            return Err(self.bad("relative_attention_num_buckets", message));
        }
        if farthest <= buckets / 2 {
            let message =
                format!("is {farthest}: it must lie beyond the {} distances with own buckets", buckets / 2);
            return Err(self.bad("relative_attention_max_distance", message));
        }
        let ids = [
            ("pad_token_id", config.pad_token_id),
            ("eos_token_id", config.eos_token_id),
            ("decoder_start_token_id", config.decoder_start_token_id),
        ];
        let stops = config.stop_token_ids.iter().map(|id| ("eos_token_id", *id));
        for (field, id) in ids.into_iter().chain(stops) {
            if id >= config.vocab_size {
                let message = format!("is {id}, and the vocabulary ends at {}", config.vocab_size - 1);
                return Err(self.bad(field, message));
            }
        }
        Ok(())
    }

    fn bad(&self, field: &'static str, message: String) -> Error {
        Error::Config { path: self.path.to_owned(), field, message }
    }

    fn word(&self, field: &'static str) -> Result<Option<String>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(word)) => Ok(Some(word.clone())),
            Some(value) => Err(self.bad(field, format!("is {value}: it must be a text in quotes"))),
        }
    }

    fn flag(&self, field: &'static str) -> Result<Option<bool>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => Err(self.bad(field, format!("is {value}: it must be true or false"))),
        }
    }

    fn count(&self, field: &'static str, default: Option<i64>, most: i64) -> Result<i64> {
        match (self.fields.get(field), default) {
            (None | Some(Value::Null), Some(default)) => Ok(default),
            (None | Some(Value::Null), None) => Err(self.bad(field, "is missing".to_owned())),
            (Some(value), _) => value.as_i64().filter(|value| (1..=most).contains(value)).ok_or_else(|| {
                self.bad(field, format!("is {value}: it must be a whole number from 1 to {most}"))
            }),
        }
    }

    fn id(&self, field: &'static str) -> Result<Option<i64>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => self.token(field, value).map(Some),
        }
    }

    /// One id or a list of them; empty where the field is absent.
    fn ids(&self, field: &'static str) -> Result<Vec<i64>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(ids)) if ids.len() <= IDS_MAX => {
                ids.iter().map(|id| self.token(field, id)).collect()
            }
            Some(value) => Ok(vec![self.token(field, value)?]),
        }
    }

    fn token(&self, field: &'static str, value: &Value) -> Result<i64> {
        value
            .as_i64()
            .filter(|id| (0..=FIELD_MAX).contains(id))
            .ok_or_else(|| self.bad(field, format!("is {value}: it must be the id of a token")))
    }

    fn fraction(&self, field: &'static str, default: f64) -> Result<f64> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|value| (0.0..1.0).contains(value))
                .ok_or_else(|| self.bad(field, format!("is {value}: it must lie between 0 and 1"))),
        }
    }
}

fn contradiction(generation: &Generation, field: &'static str, generates: &str, trained: i64) -> Error {
    Error::Config {
        path: generation.path.clone(),
        field,
        message: format!("is {generates}, and {CONFIG} says {trained}: make the two files agree"),
    }
}
