//! Sends calls when they are due, whatever became of those before: a thread keeps the time, tasks wait for the answers.

use super::calls::{Call, Load};
use super::tally::{Done, End, Tally};
use crate::client::load::Ended;
use crate::client::student::Student;
use anyhow::Context;
use domain::Example;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// How long the thread sleeps at most before it looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a call without a deadline may take.
const CALL_MAX: Duration = Duration::from_secs(120);
/// How long after its deadline a server may say that it passed.
const GRACE: Duration = Duration::from_secs(2);

/// To whom calls go, and how.
pub(crate) struct Sender {
    /// One for each connection; calls take turns.
    pub(crate) students: Vec<Student>,
    pub(crate) rows: Vec<Example>,
    pub(crate) deadline: Option<Duration>,
    /// Most calls at once.
    pub(crate) in_flight_max: usize,
}

/// Sends a load, and waits for what is in flight at its end. Where this future is dropped, nothing more is sent.
pub(crate) async fn send(sender: Arc<Sender>, load: Load) -> anyhow::Result<Tally> {
    let closing = CancellationToken::new();
    let _closes = closing.clone().drop_guard();
    let handle = Handle::current();
    let paced = tokio::task::spawn_blocking(move || pace(&sender, &load, &closing, &handle));
    let (mut tally, mut in_flight) = paced.await.context("the generator broke down")??;
    while let Some(done) = in_flight.join_next().await {
        tally.add(done.context("a call broke down")?)?;
    }
    Ok(tally)
}

/// The thread of a load. A sleep of the operating system ends within a tenth of a millisecond; the runtime's timers are ten times
/// coarser, which a student that answers in a few milliseconds would be blamed for.
fn pace(
    sender: &Arc<Sender>,
    load: &Load,
    closing: &CancellationToken,
    handle: &Handle,
) -> anyhow::Result<(Tally, JoinSet<Done>)> {
    let mut tally = Tally::new(load.rate, load.seconds)?;
    let mut in_flight: JoinSet<Done> = JoinSet::new();
    let begin = Instant::now();
    for call in load.calls() {
        if !wait_until(begin + call.due, closing) {
            break;
        }
        while let Some(done) = in_flight.try_join_next() {
            tally.add(done.context("a call broke down")?)?;
        }
        tally.due += 1;
        if in_flight.len() >= sender.in_flight_max {
            tally.not_sent += 1;
            continue;
        }
        let turn = usize::try_from(tally.due).unwrap_or(0) % sender.students.len().max(1);
        in_flight.spawn_on(one(Arc::clone(sender), call, turn, begin), handle);
    }
    Ok((tally, in_flight))
}

/// Whether the moment came before the end.
fn wait_until(due: Instant, closing: &CancellationToken) -> bool {
    while !closing.is_cancelled() {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK_EVERY));
    }
    false
}

/// One call, to its end.
async fn one(sender: Arc<Sender>, call: Call, turn: usize, begin: Instant) -> Done {
    let due = begin + call.due;
    let sent = due.elapsed();
    let limit = match (call.dropped_after, sender.deadline) {
        (Some(after), _) => after.saturating_sub(sent),
        (None, Some(deadline)) => deadline + GRACE,
        (None, None) => CALL_MAX,
    };
    let (end, first) = match tokio::time::timeout(limit, ask(&sender, &call, turn)).await {
        Ok(Ok(Ended::Answered { first, by })) => {
            let by = by.map(|(model, version)| format!("{model}@{version}"));
            (End::Answered(by), first.map(|first| first.saturating_duration_since(due)))
        }
        Ok(Ok(Ended::Left)) => (End::Dropped, None),
        Ok(Err(status)) => (end(&status, sender.deadline.is_some()), None),
        Err(_) if call.dropped_after.is_some() => (End::Dropped, None),
        Err(_) => (End::Late, None),
    };
    Done { ask: call.ask, end, sent, took: due.elapsed(), first, at: begin.elapsed() }
}

async fn ask(sender: &Sender, call: &Call, turn: usize) -> Result<Ended, Status> {
    let absent = || Status::internal("there is no connection or no row");
    let student = sender.students.get(turn).ok_or_else(absent)?;
    let row = sender.rows.get(call.row).cloned().ok_or_else(absent)?;
    student.ask_once(call.ask, row, sender.deadline, call.dropped_after.is_some()).await
}

/// How a call ended that has a status.
fn end(status: &Status, has_deadline: bool) -> End {
    match status.code() {
        Code::ResourceExhausted => End::Refused(status.message().to_owned()),
        Code::DeadlineExceeded => End::Late,
        // The transport keeps the deadline as well, and calls its end so.
        Code::Cancelled if has_deadline => End::Late,
        code => {
            let words = app::client::unanswered(status).unwrap_or_else(|| status.message().to_owned());
            End::Failed(wire::code_name(code).to_owned(), words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_refusal_a_deadline_or_a_failure() {
        assert!(
            matches!(end(&Status::resource_exhausted("full"), false), End::Refused(words) if words == "full")
        );
        assert!(matches!(end(&Status::deadline_exceeded("late"), true), End::Late));
        assert!(matches!(end(&Status::cancelled("Timeout expired"), true), End::Late));
        assert!(
            matches!(end(&Status::cancelled("left"), false), End::Failed(code, _) if code == "CANCELLED")
        );
        assert!(
            matches!(end(&Status::unavailable("gone"), true), End::Failed(code, _) if code == "UNAVAILABLE")
        );
    }

    #[test]
    fn a_generator_that_is_to_end_waits_no_longer() {
        let closing = CancellationToken::new();
        assert!(wait_until(Instant::now(), &closing));
        closing.cancel();
        let began = Instant::now();
        assert!(!wait_until(began + Duration::from_secs(60), &closing));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
