//! The gRPC API: generated code, conversions between messages and the domain, faults as statuses, trace context on every call.
//!
//! Messages become domain types here and nowhere else: `TryFrom` inward, with every mistake at once and by its field,
//! `From` outward.
//!
//! # Invariants
//!
//! - No `v1::` type travels further in than the services; conversions lose nothing ([`v1`] to `domain` and back is the same).
//! - One function, [`status()`], turns a fault into a gRPC status. The words of an internal error are logged, not sent.
//! - A status always fits into its headers, whatever it names.
//!
//! # Example
//!
//! ```
//! use domain::Violation;
//!
//! let status = wire::invalid(vec![Violation::new("training.alpha", "is 2: it must lie between 0 and 1")]);
//! assert_eq!(status.code(), tonic::Code::InvalidArgument);
//! assert_eq!(wire::violations_of(&status)[0].field, "training.alpha");
//! ```

mod batches;
mod channel;
mod codec;
pub mod convert;
mod deadline;
mod enums;
mod estimate;
mod fitting;
mod jobs;
mod ledger;
mod records;
mod runs;
mod spec;
pub mod status;
pub mod trace;

pub use batches::batch;
pub use channel::{Channel, Credentials, channel};
pub use codec::{Codec, ProstDecoder};
pub use convert::{
    Checked, duration, duration_of, id, optional, present, rfc3339, timestamp, timestamp_of, under,
};
pub use deadline::{TIMEOUT_HEADER, timeout_of};
pub use enums::filter;
pub use fitting::{CHUNK_BYTES_MAX, bytes_of, fitting, parts};
pub use jobs::{Watched, ledger_entry};
pub use ledger::{LedgerFields, rejudged_message};
pub use prost::Message;
pub use runs::{lease_request, run_draft};
pub use spec::draft;
pub use status::{INTERNAL, busy, code_name, fault_of, invalid, reason, status, violations_of};

/// The generated messages, clients and servers of `proto/distillery/v1`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic, reason = "generated")]
#[rustfmt::skip]
pub mod v1 {
    include!("gen/distillery.v1.rs");
}

/// The generated messages, clients and servers of the Open Inference Protocol, version 2.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic, reason = "generated")]
#[rustfmt::skip]
pub mod open_inference {
    include!("gen/inference.rs");
}

/// The descriptors of every message and service, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/distillery.v1.bin");

/// Largest message that a service reads or writes, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most rows of one streamed chunk.
pub const CHUNK_ROWS_MAX: usize = 1_000;
/// Longest specification, in bytes of its message.
pub const SPEC_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest reason of a call, in bytes.
pub const REASON_BYTES_MAX: usize = 4 * 1024;
/// Longest path or hash that is reported, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Longest name of a metric, in bytes.
pub const METRIC_BYTES_MAX: usize = 64;
