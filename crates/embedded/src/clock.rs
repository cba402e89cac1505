//! The time of records: the machine's, or a test's, and never earlier than it was.

use std::sync::{Arc, Mutex, PoisonError};

/// Milliseconds since the Unix epoch, from wherever tests want them.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A clock that is never behind what it said before: leases run out, and times of things go up, whatever happens to the
/// machine's clock. Set back, it goes on from where it was; once the machine's clock is there, it is that again.
pub(crate) struct ForwardClock {
    clock: Clock,
    said: Mutex<Said>,
}

/// What a clock said last, and how far that was ahead of the machine's.
struct Said {
    last: i64,
    ahead: i64,
}

impl ForwardClock {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, said: Mutex::new(Said { last: i64::MIN, ahead: 0 }) }
    }

    pub(crate) fn now(&self) -> i64 {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.clock)();
        said.ahead = if now >= said.last { 0 } else { said.ahead.max(said.last.saturating_sub(now)) };
        said.last = said.last.max(now.saturating_add(said.ahead));
        said.last
    }
}
