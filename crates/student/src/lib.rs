//! A published checkpoint as a predictor: the one place that says what a student answers. Training measures its students
//! here, and inference serves them from here.
//!
//! `opened` reads a folder, strictly; `tokenizer` turns texts into tokens and `detokenizer` tokens into text while they are
//! written; `codec` asks the questions of each task and objective and reads the answers, `candidates` the labels of closed sets;
//! `predictor` computes them step by step for the rows of a `session`, with crate `t5` or with `packed`, its form of integer
//! products for processors, and `writing` follows each text; `serving` measures, once, in which form a student is served.
//!
//! # Invariants
//!
//! - No server and no database is imported.
//! - The label that a closed set gives, and its probabilities, do not depend on the other rows of a batch.
//! - No probability is NaN.
//!
//! # Example
//!
//! ```no_run
//! use domain::Example;
//! use std::path::Path;
//!
//! # fn ask() -> Result<(), student::StudentError> {
//! let student = student::Student::open(Path::new("models/sums"), student::device(true))?;
//! let example = Example { input: "2 + 3?".to_owned(), ..Example::default() };
//! let answers = student.with(|predictor| {
//!     predictor.answers(&[&example], &mut || Ok::<(), student::StudentError>(()))
//! })?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod calibration;
mod candidates;
mod codec;
mod detokenizer;
mod error;
mod opened;
mod packed;
mod predictor;
mod serving;
mod session;
mod tokenizer;
mod writing;

pub use answer::{Answer, Choice, LabelProbability};
pub use candidates::{Candidate, Candidates};
pub use codec::{Ask, Codec, Limits, Prompt};
pub use detokenizer::IncrementalDetokenizer;
pub use error::StudentError;
pub use opened::{Student, open_checkpoint};
pub use predictor::{Predictor, width};
pub use serving::Serving;
pub use session::Session;
pub use t5::Strategy;
pub use tch::Device;
pub use tokenizer::Tokenizer;
pub use writing::Event;

/// The device that students compute on: a CUDA device where `use_cuda` allows it and there is one.
pub fn device(use_cuda: bool) -> Device {
    if use_cuda { t5::device::select() } else { Device::Cpu }
}

/// Sets the threads of the tensor library; 0 leaves one per core.
pub fn use_threads(threads: u32) {
    if threads > 0 {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
    }
}
