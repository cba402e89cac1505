//! A model's shape, as `config.json` has it.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The feed-forward layer's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedForward {
    /// `wo(relu(wi(x)))`: v1.0.
    Relu,
    /// `wo(gelu(wi_0(x)) * wi_1(x))`, GELU in its tanh form: v1.1 and Flan.
    GatedGelu,
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

/// A model's shape. Fields are named as in `config.json`; what is not known here is kept and written back.
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
    pub feed_forward: FeedForward,
    /// Whether the output projection is the embedding, its logits scaled by d_model^-0.5: v1.0. Version 5 of `transformers`
    /// writes `true` for every T5, and says in `scale_decoder_outputs` what is meant; we write what every version reads.
    pub tie_word_embeddings: bool,
    /// The id of padding.
    pub pad_token_id: i64,
    /// The id that ends a sequence.
    pub eos_token_id: i64,
    /// The id that the decoder starts with.
    pub decoder_start_token_id: i64,
    /// Everything else that config.json says.
    pub rest: Map<String, Value>,
}

/// Largest value of any width or count: beyond it a file is damaged, not a model.
const FIELD_MAX: i64 = 1 << 24;
/// Most blocks of a stack: the list of tensors to look for grows with them, whatever the files hold.
const LAYERS_MAX: i64 = 1 << 10;
/// Version 5 of `transformers` says with this field whether a T5 is v1.0.
pub(crate) const SCALED: &str = "scale_decoder_outputs";

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
            feed_forward: FeedForward::GatedGelu,
            tie_word_embeddings: false,
            pad_token_id: 0,
            eos_token_id: 1,
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

    /// Reads `config.json` of a checkpoint folder.
    ///
    /// # Errors
    /// The file is absent, no JSON, or no T5: the field is named.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder.is_dir() => {
                return Err(Error::Incomplete { path: folder.to_owned(), missing: "config.json" });
            }
            Err(source) => return Err(Error::Io { path, source }),
        };
        let bad = |field: &'static str, message: String| Error::Config { path: path.clone(), field, message };
        let fields: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| bad("file", format!("is no JSON object: {error}")))?;
        Reader { fields, path: &path }.config()
    }

    /// `config.json`'s words.
    pub fn to_json(&self) -> Value {
        let mut fields = self.rest.clone();
        // What `tie_word_embeddings` says instead, and what the weights were before they were widened to float32.
        fields.retain(|name, _| name != SCALED && name != "torch_dtype");
        let projection = match self.feed_forward {
            FeedForward::Relu => "relu",
            FeedForward::GatedGelu => "gated-gelu",
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
            ("feed_forward_proj", projection.into()),
            ("tie_word_embeddings", self.tie_word_embeddings.into()),
            ("pad_token_id", self.pad_token_id.into()),
            ("eos_token_id", self.eos_token_id.into()),
            ("decoder_start_token_id", self.decoder_start_token_id.into()),
        ] {
            fields.insert(name.to_owned(), value);
        }
        Value::Object(fields)
    }
}

struct Reader<'a> {
    fields: Map<String, Value>,
    path: &'a Path,
}

impl Reader<'_> {
    fn config(mut self) -> Result<Config> {
        let kind = self.word("model_type", "t5")?;
        if !matches!(kind.as_str(), "t5" | "mt5") {
            return Err(self.bad("model_type", format!("is `{kind}`: only T5 checkpoints are read")));
        }
        let num_layers = self.count("num_layers", None, LAYERS_MAX)?;
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
            dropout_rate: self.share("dropout_rate", 0.1)?,
            layer_norm_epsilon: self.share("layer_norm_epsilon", 1e-6)?,
            feed_forward: self.feed_forward(&kind)?,
            tie_word_embeddings: self.is_tied(&kind)?,
            pad_token_id: self.id("pad_token_id", 0)?,
            eos_token_id: self.id("eos_token_id", 1)?,
            decoder_start_token_id: self.id("decoder_start_token_id", 0)?,
            rest: std::mem::take(&mut self.fields),
        };
        self.check(&config)?;
        Ok(config)
    }

    fn feed_forward(&self, kind: &str) -> Result<FeedForward> {
        let default = if kind == "mt5" { "gated-gelu" } else { "relu" };
        match self.word("feed_forward_proj", default)?.as_str() {
            "relu" => Ok(FeedForward::Relu),
            "gated-gelu" => Ok(FeedForward::GatedGelu),
            other => {
                Err(self.bad("feed_forward_proj", format!("is `{other}`: relu and gated-gelu are known")))
            }
        }
    }

    /// v1.0 or v1.1, from either way of saying it.
    fn is_tied(&self, kind: &str) -> Result<bool> {
        let tied = self.flag("tie_word_embeddings")?;
        match (self.flag(SCALED)?, tied) {
            (Some(true), Some(false)) => {
                let message =
                    "is true, and tie_word_embeddings is false: no T5 scales the logits of a head of its own";
                Err(self.bad(SCALED, message.to_owned()))
            }
            (Some(scaled), _) => Ok(scaled),
            (None, tied) => Ok(tied.unwrap_or(kind != "mt5")),
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
        for (field, id) in [
            ("pad_token_id", config.pad_token_id),
            ("eos_token_id", config.eos_token_id),
            ("decoder_start_token_id", config.decoder_start_token_id),
        ] {
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

    fn word(&self, field: &'static str, default: &str) -> Result<String> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(Value::String(word)) => Ok(word.clone()),
            Some(value) => {
                Err(self.bad(field, format!("is {value}: it must be a word such as \"{default}\"")))
            }
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

    fn id(&self, field: &'static str, default: i64) -> Result<i64> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_i64()
                .filter(|value| (0..=FIELD_MAX).contains(value))
                .ok_or_else(|| self.bad(field, format!("is {value}: it must be the id of a token"))),
        }
    }

    fn share(&self, field: &'static str, default: f64) -> Result<f64> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|value| (0.0..1.0).contains(value))
                .ok_or_else(|| self.bad(field, format!("is {value}: it must lie between 0 and 1"))),
        }
    }
}
