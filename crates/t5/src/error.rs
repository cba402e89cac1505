//! What can go wrong: each message says what, where, and what to do.

use std::path::PathBuf;

/// A failure of a model or its checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A file of a checkpoint is absent.
    #[error("{}: has no {missing}: a checkpoint folder holds config.json and model.safetensors (or its index)", path.display())]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// What is not there.
        missing: &'static str,
    },
    /// config.json does not describe a T5 that can be built.
    #[error("{}: {field}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The file is not a safetensors file, or is truncated.
    #[error("{}: is not a whole safetensors file ({message}): copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        message: String,
    },
    /// A tensor that the configuration asks for is not there.
    #[error("{}: has no tensor `{name}`, which config.json asks for: is it the checkpoint of another model?", path.display())]
    MissingTensor {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{name}` has shape {found:?}, and config.json asks for {expected:?}", path.display())]
    Misshapen {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// The shape it should have.
        expected: Vec<i64>,
    },
    /// A tensor that no T5 has.
    #[error("{}: holds the unknown tensor `{name}`: is it the checkpoint of another model?", path.display())]
    UnknownTensor {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Weights that are infinite or not a number.
    #[error(
        "{}: tensor `{name}` is {value} at {position:?} ({count} of its {total} numbers are not finite): a conversion to float16 \
         may overflow like this; convert the original weights again, to float32 or bfloat16", path.display()
    )]
    NotFinite {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// How many there are.
        count: i64,
        /// Of how many numbers.
        total: usize,
        /// The first of them.
        value: f64,
        /// Where the first is.
        position: Vec<i64>,
    },
    /// The files hold an encoder and no decoder.
    #[error(
        "{}: holds an encoder and no decoder (a T5EncoderModel): use a checkpoint of T5ForConditionalGeneration", .0.display()
    )]
    EncoderOnly(PathBuf),
    /// A tied model with a head that differs from the embedding: versions of `transformers` compute it differently.
    #[error(
        "{}: `lm_head.weight` differs from the embedding, and config.json ties them: where the model has a head of its own, \
         set tie_word_embeddings to false there (v1.1), and scale_decoder_outputs to true as well where its output is scaled; \
         else remove the tensor", .0.display()
    )]
    Untied(PathBuf),
    /// A tensor in a number format that is not read.
    #[error("{}: tensor `{name}` is {dtype}: float64, float32, bfloat16 and float16 weights are read", path.display())]
    Dtype {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its format.
        dtype: String,
    },
    /// Ids, masks or labels that do not fit the model or each other.
    #[error("{0}")]
    Input(String),
    /// Logits that are infinite or not a number.
    #[error(
        "the logits are not finite: the weights overflow in this number format; use another checkpoint, or float32"
    )]
    Logits,
    /// The tensor library.
    #[error("the tensor library failed: {0}")]
    Tensor(#[from] tch::TchError),
}
