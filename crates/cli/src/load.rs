//! A load on a served student: which calls are due when, how they are sent, what came of them, and how that is told.

pub(crate) mod arrivals;
pub(crate) mod calls;
pub(crate) mod knee;
pub(crate) mod pace;
pub(crate) mod picture;
pub(crate) mod tally;
pub(crate) mod told;
