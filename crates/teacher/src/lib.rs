//! Teachers: rendering prompts, the HTTP dialects of providers, and the stack of limits and retries around each call.
//!
//! [`Renderer`] makes a prompt from a task and an example; [`Teacher`] asks it: retries outside, then the limits that all
//! replicas share (its start, calls at once, the breaker), the job's account, and one call with its timeouts.
//!
//! # Invariants
//!
//! - A job names a profile; it contains no URL and no key.
//! - A secret ([`domain::Secret`]) does not print, and is cut from every text that a server sends before it is read.
//! - Every wait, retry, body and template is bounded.
//!
//! # Example
//!
//! ```
//! use domain::{Example, Task};
//! use teacher::Renderer;
//!
//! let renderer = Renderer::new(&Task::built_in("equation").unwrap())?;
//! let example = Example { input: "Ann has 3 pens and buys 4. How many pens are there?".into(), ..Example::default() };
//! let prompt = renderer.render(&example, None)?.prompt;
//! assert!(prompt.trim_end().ends_with("A:"));
//! # Ok::<(), teacher::TeacherError>(())
//! ```

mod account;
mod attempt;
mod batch;
mod client;
mod context;
mod dialect;
mod error;
mod headers;
mod meters;
mod profile;
mod redact;
mod render;
mod retry_after;
mod stack;
mod standing;
mod turn;

pub use account::{CallAccount, NotReserved, Unmetered};
pub use batch::{
    BatchAnswer, BatchClose, BatchLimits, BatchOutput, BatchStatus, BatchTeacher, Candidate, Input, LineSaid,
    Listed, Payload, Proof, Results,
};
pub use error::{Failure, TeacherError};
pub use headers::{LimitState, RateLimitHeaders};
pub use profile::{Parameters, Prices, Profile, Provider, TokensParameter};
pub use render::{Rendered, Renderer};
pub use stack::Teacher;
pub use standing::{Obstacle, ObstacleKind};

use domain::budget::Usage;
use domain::completion::FinishReason;
use domain::ids::CallId;

/// One question to a teacher.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Question {
    /// The system message for chat models; empty for none.
    pub instruction: String,
    /// The rendered prompt.
    pub prompt: String,
    /// How it is sampled.
    pub sampling: Sampling,
}

/// How a completion is sampled.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus mass.
    pub top_p: f64,
    /// Most tokens of the completion.
    pub tokens_max: u32,
    /// Sequences that end it.
    pub stop: Vec<String>,
    /// Which sample of the example this is.
    pub sample: u32,
}

/// What a teacher answered: whole, cut at its limit of tokens, or refused ([`FinishReason::ContentFilter`], with or without a
/// text).
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The text, without the thoughts; of a refusal, what the model said instead.
    pub text: String,
    /// What the model thought before it answered, where the server tells it.
    pub thoughts: String,
    /// Why the text ended.
    pub finish_reason: FinishReason,
    /// The model, as the server names it.
    pub model: String,
    /// The call that was answered; it is reserved until whoever keeps the answer ends it as charged with `usage`.
    pub call: CallId,
    /// What that call cost, at the prices of cached tokens too; tokens are estimated where the server does not count.
    pub usage: Usage,
    /// Seconds of the call, retries included.
    pub seconds: f64,
}

/// The tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tokens {
    /// Of the prompt, all together.
    pub(crate) tokens_in: u64,
    /// Of these, what the server had in its cache.
    pub(crate) cached: u64,
    /// Of these, what it wrote into its cache.
    pub(crate) written: u64,
    /// Of the completion, thoughts included.
    pub(crate) tokens_out: u64,
}

/// An estimate of a text's tokens for reservations: one for every four bytes.
pub fn estimate_tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}
