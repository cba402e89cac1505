//! Prompts that one call asks together: which ones, and what each of them is answered.

use crate::at_work::Mark;
use crate::job::{self, PreparedJob};
use domain::budget::{CallEnd, Usage};
use domain::completion::{FinishReason, split_answers};
use domain::ids::DistillationId;
use domain::ports::Delivery;
use domain::records::{Completion, Harvested, LeasedPrompt};
use domain::state::Purpose;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use teacher::Reply;
use tracing::Span;

/// Rows that are asked about together before it is decided whether that works with a teacher.
const TRIED_LEAST: usize = 32;
/// Jobs that are remembered; when it is full, all are forgotten, and tried again.
const JOBS_MAX: usize = 256;

/// A leased prompt, and the entry that it came with.
pub(super) struct Member {
    pub(super) leased: LeasedPrompt,
    pub(super) delivery: Delivery,
    pub(super) span: Span,
    pub(super) at_work: Mark,
}

/// What prompts have to have in common, to be asked by one call: everything but their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Alike {
    job: DistillationId,
    profile: u32,
    sample: u32,
    hinted: bool,
    purpose: Purpose,
}

/// Prompts by the calls that will ask them, in the order in which they came.
#[derive(Default)]
pub(super) struct Groups {
    groups: Vec<(Vec<Member>, usize)>,
    /// The groups that have room.
    open: HashMap<Alike, usize>,
}

impl Groups {
    /// Adds a prompt to a call of at most `rows` of them. One whose answer is known stays alone.
    pub(super) fn add(&mut self, member: Member, rows: usize) {
        if rows <= 1 || member.leased.cached.is_some() {
            self.groups.push((vec![member], 1));
            return;
        }
        let prompt = &member.leased.prompt;
        let alike = Alike {
            job: prompt.distillation,
            profile: prompt.profile,
            sample: prompt.sample,
            hinted: prompt.hinted,
            purpose: prompt.purpose,
        };
        let place = *self.open.entry(alike).or_insert(self.groups.len());
        match self.groups.get_mut(place) {
            Some((members, _)) => members.push(member),
            None => self.groups.push((vec![member], rows)),
        }
        if self.groups.get(place).is_some_and(|(members, rows)| members.len() >= *rows) {
            self.open.remove(&alike);
        }
    }

    /// How many more prompts would fill the calls that have room.
    pub(super) fn room(&self) -> usize {
        self.open
            .values()
            .filter_map(|place| self.groups.get(*place))
            .map(|(members, rows)| rows.saturating_sub(members.len()))
            .sum()
    }

    pub(super) fn into_calls(self) -> impl Iterator<Item = Vec<Member>> {
        self.groups.into_iter().map(|(members, _)| members)
    }
}

/// What an answer to several prompts comes to: what is found, and the prompts that it does not answer.
pub(super) struct Divided {
    pub(super) answered: Vec<(Member, Harvested)>,
    pub(super) unanswered: Vec<Member>,
    /// How the call ended, where no answer ends it.
    pub(super) end: Option<CallEnd>,
}

/// Divides the `texts` of an answer among the prompts that were asked. A call costs what it costs: each answer carries a part of that, and the
/// first of them ends the call.
pub(super) fn divide(
    job: &PreparedJob,
    members: Vec<Member>,
    texts: Vec<Option<String>>,
    reply: Reply,
) -> Divided {
    // The parts are all that is kept of the text.
    let reply = Reply { text: String::new(), thoughts: String::new(), ..reply };
    let (mut found, mut unanswered) = (Vec::new(), Vec::new());
    for (member, text) in members.into_iter().zip(texts) {
        match text {
            Some(text) => found.push((member, text)),
            None => unanswered.push(member),
        }
    }
    let end = CallEnd::Charged(reply.usage);
    let lengths: Vec<usize> = found.iter().map(|(_, text)| text.len()).collect();
    let mut call = Some((reply.call, end));
    let answered: Vec<(Member, Harvested)> = found
        .into_iter()
        .zip(parts(reply.usage, &lengths))
        .map(|((member, text), usage)| {
            let part = Reply { text, usage, finish_reason: FinishReason::Stop, ..reply.clone() };
            let completion: Completion = job::completion(member.leased.prompt.key, part);
            let calls = call.take().into_iter().collect();
            let leased = &member.leased;
            let harvested = job.harvested(&leased.prompt, &leased.example, completion, calls);
            (member, harvested)
        })
        .collect();
    Divided { answered, unanswered, end: call.map(|(_, end)| end) }
}

/// The answers in a reply to so many questions. A refused reply holds none: it may be one row's fault. Of a reply that ended at
/// its limit of tokens, the last answer is not whole.
pub(super) fn answers(reply: &Reply, count: usize) -> Vec<Option<String>> {
    let mut texts = match reply.finish_reason {
        FinishReason::ContentFilter => vec![None; count],
        FinishReason::Stop | FinishReason::Length => split_answers(&reply.text, count),
    };
    if reply.finish_reason == FinishReason::Length {
        let end = reply.text.trim_end();
        let last = texts.iter_mut().find(|text| text.as_deref().is_some_and(|text| end.ends_with(text)));
        if let Some(last) = last {
            *last = None;
        }
    }
    texts
}

/// Divides what a call cost among answers of these lengths: the prompt evenly, the completion by length. Nothing is lost in
/// rounding.
fn parts(usage: Usage, lengths: &[usize]) -> Vec<Usage> {
    let (count, bytes) = (lengths.len() as u128, lengths.iter().sum::<usize>().max(1) as u128);
    let part = |total: u64, from: u128, to: u128, whole: u128| {
        let until = |at: u128| u64::try_from(u128::from(total) * at / whole.max(1)).unwrap_or(total);
        until(to).saturating_sub(until(from))
    };
    let mut before = 0_u128;
    let mut divided = Vec::with_capacity(lengths.len());
    for (place, length) in (0_u128..).zip(lengths) {
        let after = before + *length as u128;
        divided.push(Usage {
            tokens_in: part(usage.tokens_in, place, place + 1, count),
            tokens_out: part(usage.tokens_out, before, after, bytes),
            money_micros: part(usage.money_micros, place, place + 1, count),
        });
        before = after;
    }
    divided
}

/// Whether the teachers of jobs answer several rows at once: where they do not, each row is asked about alone.
#[derive(Debug, Default)]
pub(super) struct Tried(Mutex<HashMap<DistillationId, Counts>>);

/// Rows of a job that were asked about together, and those of them that were answered.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    asked: usize,
    answered: usize,
}

impl Counts {
    fn fails(self) -> bool {
        self.asked >= TRIED_LEAST && self.answered.saturating_mul(2) < self.asked
    }
}

impl Tried {
    /// Whether fewer than half of a job's rows that were asked about together were answered.
    pub(super) fn fails(&self, job: DistillationId) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&job).is_some_and(|counts| counts.fails())
    }

    /// Notes what became of a call. Returns whether it is the one that shows that this does not work.
    pub(super) fn note(&self, job: DistillationId, asked: usize, answered: usize) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= JOBS_MAX && !known.contains_key(&job) {
            known.clear();
        }
        let counts = known.entry(job).or_default();
        let failed = counts.fails();
        counts.asked = counts.asked.saturating_add(asked);
        counts.answered = counts.answered.saturating_add(answered);
        !failed && counts.fails()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::CallId;
    use proptest::prelude::*;

    fn reply(text: &str, finish_reason: FinishReason) -> Reply {
        Reply {
            text: text.into(),
            thoughts: String::new(),
            finish_reason,
            model: "m".into(),
            call: CallId::generate(),
            usage: Usage::default(),
            seconds: 0.0,
        }
    }

    #[test]
    fn an_answer_that_was_cut_is_no_answer() {
        let of = |text: &str, finish_reason| {
            let texts = answers(&reply(text, finish_reason), 3);
            texts.iter().map(Option::is_some).collect::<Vec<_>>()
        };
        assert_eq!(of("[1] a\n[2] b\n[3] c", FinishReason::Stop), [true, true, true]);
        assert_eq!(of("[1] a\n[2] b\n[3] c", FinishReason::Length), [true, true, false]);
        assert_eq!(of("[1] a\n[2] b\n", FinishReason::Length), [true, false, false]);
        assert_eq!(of("[1] a\n[2] b\n[3", FinishReason::Length), [true, false, false]);
        assert_eq!(of("[1] a\n[2] b\n[3] c", FinishReason::ContentFilter), [false; 3]);
    }

    #[test]
    fn a_teacher_that_cannot_is_asked_row_by_row() {
        let (tried, job) = (Tried::default(), DistillationId::generate());
        assert!(!tried.note(job, 16, 0) && !tried.fails(job), "too early to say");
        assert!(tried.note(job, 16, 15) && tried.fails(job));
        assert!(!tried.note(job, 16, 0), "told once");
        let other = DistillationId::generate();
        assert!(!tried.note(other, 64, 32) && !tried.fails(other));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_rounding(
            tokens_in in any::<u64>(),
            tokens_out in any::<u64>(),
            money_micros in any::<u64>(),
            lengths in prop::collection::vec(1_usize..500, 1..33),
        ) {
            let usage = Usage { tokens_in, tokens_out, money_micros };
            let sum = parts(usage, &lengths).into_iter().fold(Usage::default(), Usage::plus);
            prop_assert_eq!(sum, usage);
        }
    }
}
