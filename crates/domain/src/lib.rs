//! What Distillery talks about, and nothing that talks to the outside.
//!
//! Ids, records and their states, the specification of a distillation, task data, the parsing of completions, the
//! comparison of labels, the judging of rationales, the [`lifecycle`] of a job, [`Fault`] and the [`ports`].
//!
//! Invariants: domain names no SQL, no transport, no tensor, no clock and no runtime. Everything here is a pure function
//! of its arguments or a trait that an adapter implements.

pub mod completion;
pub mod equation;
pub mod event;
pub mod example;
pub mod fault;
pub mod fingerprint;
pub mod ids;
pub mod judge;
pub mod label;
pub mod lifecycle;
pub mod metric;
mod named;
pub mod objective;
pub mod ports;
pub mod records;
pub mod rows;
pub mod run;
pub mod secret;
pub mod spec;
pub mod state;
pub mod subset;
pub mod task;
pub mod telemetry;
pub mod time;
pub mod trace;

pub use example::{Answer, Example, Split};
pub use fault::{Fault, Violation};
pub use ports::{DatasetStore, JobStore, ModelStore, PromptStore, Queue, RateLimiter, RunStore, Stores};
pub use secret::Secret;
pub use spec::Spec;
pub use task::Task;
pub use time::Timestamp;
pub use trace::Traceparent;
