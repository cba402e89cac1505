//! Whether a teacher answers, and what keeps it from that.

use crate::error::TeacherError;
use domain::ports::WaitReason;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A wait that is shorter keeps nothing from moving.
const NOTICED: Duration = Duration::from_secs(1);
/// Calls that are in flight for longer without any answer are worth a word.
const SLOW: Duration = Duration::from_secs(5);

/// What kind of thing keeps a teacher from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObstacleKind {
    /// A limit of the profile: the next call starts later.
    Limit,
    /// It refuses calls for now (429).
    Refused,
    /// It fails or cannot be reached.
    Failed,
    /// Calls are in flight and take long: it may yet answer, and its own time limits end them.
    Slow,
}

/// Why a teacher answers nothing at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Of what kind.
    pub kind: ObstacleKind,
    /// Since when nothing was answered and something was wanted.
    pub since: Instant,
    /// What it is, as the end of a sentence about the teacher: `refuses calls (429)`.
    pub why: String,
    /// When the next call starts, where that is known.
    pub resumes_in: Option<Duration>,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.since.elapsed().as_secs();
        write!(formatter, "{}; nothing was answered for {seconds} s", self.why)?;
        match self.resumes_in {
            Some(wait) if !wait.is_zero() => {
                write!(formatter, ", next call in {} s", wait.as_secs_f64().ceil())
            }
            _ => Ok(()),
        }
    }
}

/// What is known of one teacher.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when calls are in flight without an answer to any.
    asking_since: Option<Instant>,
    in_flight: usize,
    obstacle: Option<(ObstacleKind, Instant, String)>,
    resumes_at: Option<Instant>,
}

impl Standing {
    /// A call was sent.
    pub(crate) fn sent(&self) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_add(1);
        state.asking_since.get_or_insert_with(Instant::now);
    }

    /// A call that was sent ended, with or without an answer.
    pub(crate) fn ended(&self, answered: bool) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        if answered || state.in_flight == 0 {
            state.asking_since = (state.in_flight > 0).then(Instant::now);
        }
        if answered {
            (state.obstacle, state.resumes_at) = (None, None);
        }
    }

    /// A call waits.
    pub(crate) fn waits(&self, wait: Duration, reason: WaitReason) {
        let (kind, why) = match reason {
            WaitReason::Rate => (ObstacleKind::Limit, "waits for its limits a minute"),
            WaitReason::Day => (ObstacleKind::Limit, "has used up its limits of a day"),
            WaitReason::Refused => (ObstacleKind::Refused, "refuses calls (429)"),
            WaitReason::Failed => (ObstacleKind::Failed, "failed several times in a row"),
            // What is in flight, or the probe, says more.
            WaitReason::Concurrency | WaitReason::Probe => return,
        };
        if wait >= NOTICED || reason != WaitReason::Rate {
            self.met(kind, why.to_owned(), Some(wait), false);
        }
    }

    /// A call failed, and no prompt can do better for now.
    pub(crate) fn failed(&self, error: &TeacherError) {
        match error {
            TeacherError::Wait { failure, wait } => {
                self.met(ObstacleKind::Refused, failure.message.clone(), Some(*wait), true);
            }
            TeacherError::Unavailable { failure, wait, .. } => {
                self.met(ObstacleKind::Failed, failure.message.clone(), *wait, true);
            }
            TeacherError::Unaccounted(message) => {
                self.met(ObstacleKind::Failed, message.clone(), None, true);
            }
            _ => {}
        }
    }

    /// The words of the present obstacle.
    pub(crate) fn words(&self) -> Option<String> {
        self.state().obstacle.as_ref().map(|(_, _, words)| words.clone())
    }

    /// What is in the way, where the last answer of any replica is so long ago.
    pub(crate) fn obstacle(&self, answered_ago: Option<Duration>) -> Option<Obstacle> {
        let state = self.state();
        let now = Instant::now();
        let answered = answered_ago.and_then(|ago| now.checked_sub(ago));
        let after_answer = |since: Instant| answered.map_or(since, |answered| answered.max(since));
        if let Some((kind, since, why)) = &state.obstacle {
            let resumes_in = state.resumes_at.map(|at| at.saturating_duration_since(now));
            return Some(Obstacle { kind: *kind, since: after_answer(*since), why: why.clone(), resumes_in });
        }
        let since = after_answer(state.asking_since?);
        (now.saturating_duration_since(since) >= SLOW).then(|| Obstacle {
            kind: ObstacleKind::Slow,
            since,
            why: format!("has not answered {} calls yet", state.in_flight),
            resumes_in: None,
        })
    }

    /// Notes an obstacle; `said` is the teacher's own word, which a wait that follows from it does not replace.
    fn met(&self, kind: ObstacleKind, why: String, wait: Option<Duration>, said: bool) {
        let mut state = self.state();
        let now = Instant::now();
        state.resumes_at = wait.and_then(|wait| now.checked_add(wait));
        state.obstacle = match state.obstacle.take() {
            Some((before, since, words)) if before == kind && !said => Some((kind, since, words)),
            Some((_, since, _)) => Some((kind, since, why)),
            None => Some((kind, state.asking_since.unwrap_or(now), why)),
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use domain::budget::CallEnd;

    fn failure(message: &str) -> Box<Failure> {
        Box::new(Failure {
            profile: "test".into(),
            url: "http://host/v1".into(),
            message: message.into(),
            end: CallEnd::Refused,
        })
    }

    #[test]
    fn what_keeps_a_teacher_from_answering_is_told_until_it_answers() {
        let standing = Standing::default();
        let shown = |ago: Option<Duration>| standing.obstacle(ago).map(|obstacle| obstacle.to_string());
        assert_eq!(shown(None), None);
        standing.waits(Duration::from_millis(300), WaitReason::Rate);
        standing.waits(Duration::from_secs(9), WaitReason::Concurrency);
        assert_eq!(shown(None), None, "what is over in a moment keeps nothing from moving");
        standing.waits(Duration::from_secs(37), WaitReason::Rate);
        assert_eq!(
            shown(None).as_deref(),
            Some("waits for its limits a minute; nothing was answered for 0 s, next call in 37 s")
        );
        standing.sent();
        standing.failed(&TeacherError::Wait {
            failure: failure("asks to wait (429): `slow`"),
            wait: Duration::from_secs(4),
        });
        standing.ended(false);
        // The wait that follows is the same obstacle, in the teacher's words.
        standing.waits(Duration::from_secs(3), WaitReason::Refused);
        let found = standing.obstacle(None).unwrap();
        assert_eq!((found.kind, found.why.as_str()), (ObstacleKind::Refused, "asks to wait (429): `slow`"));
        assert!(found.resumes_in.unwrap() <= Duration::from_secs(3));
        standing.failed(&TeacherError::Unavailable {
            failure: failure("answered 503"),
            wait: None,
            is_held: false,
        });
        assert_eq!(standing.obstacle(None).unwrap().kind, ObstacleKind::Failed);
        standing.sent();
        standing.ended(true);
        assert_eq!(shown(None), None);
    }

    #[test]
    fn an_answer_of_another_replica_counts() {
        let standing = Standing::default();
        standing.waits(Duration::from_secs(37), WaitReason::Rate);
        std::thread::sleep(Duration::from_millis(30));
        let own = standing.obstacle(Some(Duration::from_secs(60))).unwrap();
        assert!(own.since.elapsed() >= Duration::from_millis(30));
        let shared = standing.obstacle(Some(Duration::ZERO)).unwrap();
        assert!(shared.since.elapsed() < Duration::from_millis(20));
    }
}
