//! Stored JSON documents: versioned by a `format` number, read with tolerance.
//!
//! An unknown key is ignored and an absent one takes its default (the type says which), so that documents of other
//! versions are read. The number counts up when the meaning of a key changes; a document without one has format 0.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Written<'a, T> {
    format: u32,
    #[serde(flatten)]
    document: &'a T,
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    format: u32,
}

/// The text of a document.
///
/// # Errors
/// The document cannot be written as JSON.
pub fn write<T: Serialize>(format: u32, document: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec_pretty(&Written { format, document }).map_err(|error| error.to_string())
}

/// Reads a document of a format up to `newest`.
///
/// # Errors
/// The text is not such a document, or has a newer format.
pub fn read<T: DeserializeOwned>(newest: u32, text: &[u8]) -> Result<T, String> {
    let Read { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if format > newest {
        return Err(format!("has format {format}, of a newer version: this one reads up to {newest}"));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
