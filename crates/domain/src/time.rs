//! Points in time, as the database's clock tells them.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time since then, by this machine's clock; none where that is behind the database's.
    pub fn elapsed(self) -> Duration {
        let then = Duration::from_millis(u64::try_from(self.0).unwrap_or(0));
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(then)
    }
}
