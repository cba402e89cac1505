//! The batch APIs of OpenAI, Anthropic and Gemini: many questions at a part of the price, answered within a day.
//!
//! What a provider is sent and sends stands in one file each, as pure functions. A line is named by its call; what is
//! submitted is marked, so that it is found again after a crash between the request and its answer: by OpenAI's `metadata`,
//! by Gemini's `displayName`, and in Anthropic's results by the lines themselves.

mod anthropic;
mod api;
mod asker;
#[cfg(test)]
mod documents;
mod gemini;
mod grouping;
mod openai;
mod results;

pub use asker::{BatchTeacher, Input, Listed, Payload};
pub use grouping::{
    BatchAnswer, BatchClose, BatchLimits, BatchOutput, BatchStatus, Candidate, LineSaid, Proof,
};
pub use results::Results;
