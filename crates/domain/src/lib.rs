//! The words and rules of Distillery, and nothing that speaks to the outside.
//!
//! Here are the specification of a distillation ([`spec`]), tasks as data ([`task`]), the reading of completions
//! ([`completion`]), the comparison of labels ([`label`]), judging ([`judge`]), what an objective trains and answers
//! ([`objective`]), records and their states ([`records`], [`state`]), what a study asks and finds ([`study`]), what a job may do next ([`lifecycle`]) and may spend ([`budget`]), what is asked next ([`policy`]) and until when ([`until`]), the names of
//! metrics and spans ([`telemetry`]), [`Fault`], and the ports that adapters implement ([`ports`]).
//!
//! # Invariants
//!
//! - No SQL, no transport, no tensor, no clock, no runtime: everything is a pure function of its arguments, a table, or a
//!   trait.
//! - Nothing panics on data from outside; what is wrong is a [`Violation`] with its field.
//! - A verdict is a function of a row's ledger entries and the rules of judging, whatever the order of arrival.
//!
//! # Example
//!
//! A completion is cut at the first stop sequence and read around the task's marker:
//!
//! ```
//! use domain::{Example, Task, completion::{FinishReason, parse}};
//!
//! let task = Task::built_in("equation").unwrap();
//! let example = Example { input: "84 pupils share 2 buses. How many ride in each?".into(), ..Example::default() };
//! let text = " They share equally, so we divide. The answer is (84 / 2).\n\nQ: And";
//! let parsed = parse(&task, &example, text, FinishReason::Stop);
//!
//! assert_eq!(parsed.rationale, "They share equally, so we divide.");
//! assert_eq!(parsed.label.as_deref(), Some("(84 / 2)"));
//! assert_eq!(parsed.reason, None);
//! ```

pub mod budget;
pub mod completion;
pub mod equation;
pub mod estimate;
pub mod event;
pub mod example;
pub mod fault;
pub mod fingerprint;
pub mod holdout;
pub mod ids;
pub mod judge;
pub mod label;
pub mod lifecycle;
pub mod metric;
mod named;
pub mod objective;
pub mod pacing;
pub mod paired;
pub mod policy;
pub mod ports;
pub mod records;
pub mod rejudge;
pub mod rows;
pub mod run;
pub mod secret;
pub mod share;
pub mod shuffle;
pub mod spec;
pub mod state;
pub mod study;
pub mod subset;
pub mod task;
pub mod telemetry;
pub mod template;
pub mod time;
pub mod trace;
pub mod until;
pub mod visible;
mod width;

pub use example::{Answer, Example, Split};
pub use fault::{Fault, Violation};
pub use ports::{
    BatchStore, CallStore, DatasetStore, JobStore, ModelStore, PromptStore, Queue, RateLimiter, RunStore,
    Stores,
};
pub use secret::Secret;
pub use spec::Spec;
pub use task::Task;
pub use time::Timestamp;
pub use trace::Traceparent;
