//! Typed identifiers: a run's id cannot be handed where a model's is wanted.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// A string that is no id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} id: a {kind} id is a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct IdError {
    kind: &'static str,
    text: String,
}

macro_rules! typed_id {
    ($(#[$documentation:meta])* $name:ident, $kind:literal) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id. Ids sort by the time they were made (UUID version 7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id behind the type, for storage.
            pub fn as_uuid(self) -> Uuid {
                self.0
            }

            /// An id read back from storage.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| IdError { kind: $kind, text: text.chars().take(64).collect() })
            }
        }
    };
}

typed_id!(
    /// A set of examples.
    DatasetId,
    "dataset"
);
typed_id!(
    /// One job: a teacher, a dataset, a student.
    DistillationId,
    "distillation"
);
typed_id!(
    /// One question to the teacher: an example, a sample number, hinted or not.
    PromptId,
    "prompt"
);
typed_id!(
    /// One request to a teacher.
    CallId,
    "call"
);
typed_id!(
    /// Calls that are made together, through a provider's batch API.
    BatchId,
    "batch"
);
typed_id!(
    /// One training of one student.
    RunId,
    "run"
);
typed_id!(
    /// One published version of a student.
    ModelId,
    "model"
);
typed_id!(
    /// A caller's name for one creating or paying call: the same id repeated does nothing twice.
    RequestId,
    "request"
);

/// The content address of a completion: sha256 over who answers, rendered prompt, sampling parameters and sample index, in
/// the form of [`fingerprint`](crate::fingerprint).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompletionKey(pub [u8; 32]);

impl CompletionKey {
    /// The key of one question. Each part is preceded by its length, so that no two questions share bytes by accident.
    pub fn of(parts: &[&[u8]]) -> Self {
        use sha2::{Digest, Sha256};
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// Reads the 32 bytes that a store kept; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for CompletionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CompletionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CompletionKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_garbage_is_named() {
        let id = RunId::generate();
        assert_eq!(id.to_string().parse::<RunId>(), Ok(id));
        let error = "x".repeat(100).parse::<RunId>().unwrap_err().to_string();
        assert!(error.contains("is not a run id"), "{error}");
        assert!(error.len() < 200, "an error never repeats unbounded input: {error}");
    }

    #[test]
    fn the_parts_of_a_key_do_not_run_into_each_other() {
        assert_ne!(CompletionKey::of(&[b"ab", b"c"]), CompletionKey::of(&[b"a", b"bc"]));
        assert_eq!(CompletionKey::of(&[b"ab", b"c"]), CompletionKey::of(&[b"ab", b"c"]));
    }
}
