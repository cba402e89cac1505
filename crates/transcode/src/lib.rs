//! Messages as JSON over HTTP: which call a method and a path mean, the request's messages of its JSON, and the JSON of what
//! comes back; and the document (OpenAPI 3.1) that tells people of it. All of it is read from descriptors: the option
//! `google.api.http` of each method says its path (<https://google.aip.dev/127>), and JSON is proto3's canonical form.
//!
//! # Invariants
//!
//! - Pure functions over descriptors: no socket, no runtime, no crate of this workspace.
//! - A field that a message does not have is an error that names it; nothing of a request is ignored.
//! - An answer has every field of its message, the ones that are zero too.

mod document;
mod failure;
mod routes;
mod template;
mod values;

pub use document::openapi;
pub use failure::{Mistake, Unusable};
pub use routes::{Answer, Api, Call, Found, Route};
