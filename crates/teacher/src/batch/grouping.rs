//! What a provider says of its batches, in words of our own.

use domain::ids::CallId;
use std::time::SystemTime;

/// How many batches a page of a list has.
pub(crate) const PAGE: usize = 100;

/// What a batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Lines.
    pub lines_max: u64,
    /// Bytes of them together.
    pub bytes_max: u64,
}

/// How a batch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchStatus {
    /// It is being worked on.
    Running {
        /// It was asked to stop.
        is_cancelling: bool,
    },
    /// Nothing more will come of it.
    Over(BatchOutput),
    /// The provider does not know it; in its words.
    Gone(String),
}

/// What a batch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOutput {
    /// Where its lines are, as the provider calls that.
    pub files: Vec<String>,
    /// Why it is over.
    pub close: BatchClose,
    /// Lines that the files have at least; `None` where that is not told.
    pub lines: Option<u64>,
}

/// Why a batch is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchClose {
    /// Every line was asked.
    Completed,
    /// Its time was over; the lines of its files were asked.
    Expired,
    /// It was cancelled; the lines of its files were asked.
    Cancelled,
    /// It was not taken: no line was asked.
    Refused {
        /// The provider's words.
        message: String,
        /// Whether it may be taken later, as where too much is enqueued already.
        is_temporary: bool,
    },
}

/// What a line of results says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// Its call; `None` where its name is none of ours.
    pub call: Option<CallId>,
    /// What it says.
    pub said: LineSaid,
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineSaid {
    /// It was answered as a call by itself is.
    Answer {
        /// The status.
        status: u16,
        /// The body, JSON.
        body: Vec<u8>,
    },
    /// It was not asked, because the batch expired or was cancelled before.
    Unasked,
    /// It cannot be read.
    Garbled,
}

/// A batch that may be one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// How the provider calls it.
    pub name: String,
    /// What shows whose it is.
    pub proof: Proof,
    /// What it brought, where it is over and that is asked.
    pub(crate) output: Option<BatchOutput>,
}

/// What shows whose a batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It has the mark.
    Mark,
    /// It has this line; whoever knows the lines can tell.
    Line(Option<CallId>),
    /// Its lines will tell, once it is over.
    Lines,
    /// It is over and has no lines: nobody's answers.
    None,
}

/// A page of a list of batches, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Page {
    pub(crate) candidates: Vec<Candidate>,
    /// When its oldest batch was made.
    pub(crate) oldest: Option<SystemTime>,
    /// Where the next page begins; `None` where there is none.
    pub(crate) next: Option<String>,
}

/// An instant of RFC 3339.
pub(crate) fn instant(text: &str) -> Option<SystemTime> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(SystemTime::from)
}
