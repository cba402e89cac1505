//! T5 on processors: int8 weights and activations, tiles per instruction set, rows in slots.
//!
//! ```text
//! tensors ── Model::pack ──> Model ── Engine::new ──> Engine
//!                                                       │ encode   rows of ids  -> Encoded (keys and values for the decoder)
//!                                                       │ step     tokens of rows in Slots -> choices or logits
//!                                                       │ score    Encoded, LabelTree -> log-likelihoods
//! ```
//!
//! A row's results are the same bits alone, in any batch, joined late, fed token by token or several at once, and on any
//! number of threads: integer sums are exact, and everything in float32 has an order that depends on the row alone.
//!
//! ```no_run
//! # fn run(shape: decoder::Shape, tensors: &decoder::Tensors<'_>) -> decoder::Result<()> {
//! use decoder::{Engine, Feed, Model, Precisions, Slots, Want};
//! use std::sync::Arc;
//!
//! let model = Arc::new(Model::pack(&shape, tensors, &Precisions::default())?);
//! let mut engine = Engine::new(Arc::clone(&model), 2)?;
//! let mut slots = Slots::new(&model, 16, 256)?;
//! for encoded in engine.encode(&[&[21, 7, 1], &[9, 1]])? {
//!     slots.join(&encoded?, 32)?;
//! }
//! # let slot = slots.join(&engine.encode(&[&[1]])?.remove(0)?, 1)?;
//! let answers = engine.step(&mut slots, &[Feed { slot, tokens: &[0], want: Want::Choices }])?;
//! # Ok(())
//! # }
//! ```
//!
//! Absences: no tensor library, no file format, no asynchronous runtime, no other crate of the workspace.

#[cfg(not(target_endian = "little"))]
compile_error!("panels hold several weights in one word, the first one lowest: little-endian machines only");

mod attend;
mod cache;
mod draft;
mod encode;
mod encoded;
mod engine;
mod error;
mod file;
mod finish;
mod head;
mod lanes;
mod measure;
mod memory;
mod model;
mod pack;
mod pass;
mod plan;
mod pool;
mod position;
mod quantise;
mod shape;
mod slots;
mod step;
mod tile;
mod tree;
mod workspace;

pub use draft::Tensors;
pub use encoded::Encoded;
pub use engine::{Answer, Engine, Feed, Want};
pub use error::{Error, Result};
pub use head::Choice;
pub use model::Model;
pub use shape::{Activation, Precision, Precisions, Shape};
pub use slots::{Slot, Slots};
pub use tile::Tile;
pub use tree::LabelTree;
