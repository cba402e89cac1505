//! T5 (Raffel et al. 2020) and T5 v1.1, as the papers read: configuration, norm, position bias, attention, feed-forward,
//! stack, model, loss, generation, and the Hugging Face layout of checkpoints.
//!
//! Master weights are float32; passes compute in float32 or bfloat16 ([`Compute`]), with norm, softmax and loss in float32
//! always. Shapes are written `[batch, heads, query, key]`. Which checkpoints open, and how `transformers` reads each kind, is
//! listed in docs/MODELS.md.
//!
//! # Invariants
//!
//! - No crate of this workspace is imported: it can be read, and tested against `transformers`, by itself.
//! - A checkpoint that loads has every tensor in its shape and every weight finite, so that the arithmetic after it cannot
//!   fail.
//! - A row's result is the same alone and in any batch.
//!
//! # Example
//!
//! ```no_run
//! # fn main() -> t5::Result<()> {
//! use t5::{Model, Size};
//!
//! let model = Model::from_scratch(Size::Tiny.config(512), 7, tch::Device::Cpu)?;
//! model.save("student".as_ref(), u64::MAX)?;
//! let again = Model::load("student".as_ref(), tch::Device::Cpu)?;
//! assert_eq!(again.parameter_count(), model.parameter_count());
//! # Ok(())
//! # }
//! ```

mod activation;
mod attention;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod error;
mod feed_forward;
pub mod flat;
pub mod generate;
mod initialise;
pub mod loss;
pub mod model;
mod norm;
mod pass;
mod position_bias;
mod rows;
mod score_bias;
mod stack;
mod weights;

pub use config::{Activation, Config, FeedForwardKind, Size};
pub use error::Error;
pub use flat::{Flat, Group, Span};
pub use generate::{GenerateOptions, Sampler, Step, Strategy, generate, generate_with, score};
pub use loss::{mean_loss, token_losses};
pub use model::{Batch, DecoderState, EncoderOutput, ForwardOptions, Model, Pair, TOKENS_MULTIPLE};
pub use weights::Weights;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Ids of labels that count in no loss.
pub const IGNORED: i64 = -100;

/// The number format of a pass. There is no float16: T5's feed-forward overflows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compute {
    /// float32.
    Float32,
    /// bfloat16 in matrix products and between layers.
    BFloat16,
}

impl Compute {
    pub(crate) fn kind(self) -> tch::Kind {
        match self {
            Self::Float32 => tch::Kind::Float,
            Self::BFloat16 => tch::Kind::BFloat16,
        }
    }
}
