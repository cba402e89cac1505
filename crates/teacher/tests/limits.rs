//! Teachers within limits: what reaches a server that refuses, fails or takes few calls at once, and what callers are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod limited;

use domain::budget::{CallBound, CallEnd};
use domain::ids::CallId;
use domain::ports::{RateLimiter, RateLimits};
use embedded::MemoryRateLimiter;
use limited::{LimitedTeacher, Rules};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use teacher::{
    CallAccount, NotReserved, ObstacleKind, Profile, Provider, Question, Sampling, Teacher, TeacherError,
    Unmetered,
};

const FOREVER: Duration = Duration::from_secs(3_600);

fn profile(server: &LimitedTeacher, concurrency_max: usize) -> Profile {
    Profile { concurrency_max, ..Profile::new("test", Provider::OpenAiCompletions, &server.url, "small") }
}

/// As many replicas as there are wanted, which share their limits.
fn replicas(profile: &Profile, count: usize) -> Vec<Teacher> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let rate_limiter: Arc<dyn RateLimiter> = Arc::new(MemoryRateLimiter::default());
    (0..count).map(|_| Teacher::new(profile.clone(), Arc::clone(&rate_limiter)).unwrap()).collect()
}

fn question() -> Question {
    Question {
        instruction: String::new(),
        prompt: "Q: 1 + 1?\nA:".into(),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, tokens_max: 16, stop: Vec::new(), sample: 0 },
    }
}

/// Asks again and again as workers do, with so many at once, until the time is over; how many answers came.
async fn work(teacher: &Teacher, workers: usize, time: Duration) -> usize {
    let until = Instant::now() + time;
    let worker = |_| {
        let teacher = teacher.clone();
        tokio::spawn(async move {
            let mut answers = 0;
            while Instant::now() < until {
                let left = until.saturating_duration_since(Instant::now());
                match tokio::time::timeout(left, teacher.ask(question(), Arc::new(Unmetered))).await {
                    Ok(Ok(_)) => answers += 1,
                    Ok(Err(TeacherError::Wait { wait, .. })) => tokio::time::sleep(wait.min(left)).await,
                    Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                    Err(_over) => {}
                }
            }
            answers
        })
    };
    let workers: Vec<_> = (0..workers).map(worker).collect();
    let mut answers = 0;
    for worker in workers {
        answers += worker.await.unwrap();
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_together_keep_close_to_the_rate_and_are_not_refused() {
    let limits = RateLimits { requests_per_minute: Some(1_200), ..RateLimits::default() };
    let server = LimitedTeacher::start(Rules { limit: Some(1_200), ..Rules::default() }).await;
    let teachers = replicas(&Profile { limits, ..profile(&server, 64) }, 4);
    futures::future::join_all(teachers.iter().map(|teacher| work(teacher, 8, Duration::from_secs(6)))).await;
    assert_eq!(server.statuses(429), 0);
    let (seen, second) = (server.seen(), Duration::from_secs(1));
    let later = seen.iter().filter(|request| request.at > seen[0].at + second).count();
    // Five seconds of twenty calls.
    assert!((93..=101).contains(&later), "{later} calls in five seconds");
    assert!(server.most_in(second) <= 42, "{} calls in a second", server.most_in(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teacher_that_only_refuses_is_hardly_asked() {
    let server = LimitedTeacher::start(Rules { refuses: Some((429, FOREVER)), ..Rules::default() }).await;
    let teacher = &replicas(&profile(&server, 16), 1)[0];
    assert_eq!(teacher.obstacle().await, None, "nothing was wanted yet");
    let watched = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let early = teacher.obstacle().await.unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        (early, teacher.obstacle().await.unwrap())
    };
    let (answers, (early, late)) = tokio::join!(work(teacher, 64, Duration::from_secs(10)), watched);
    assert_eq!(answers, 0);
    // As many of the first sixteen as are sent before the first refusal is read, then one after 2 s and one 4 s later.
    assert!((3..=19).contains(&server.seen().len()), "{} calls", server.seen().len());
    assert_eq!(early.kind, ObstacleKind::Refused);
    assert!(early.why.contains("429"), "{early}");
    assert!(late.since.elapsed() >= Duration::from_secs(8), "{late}");
    assert!(late.resumes_in.unwrap() <= Duration::from_secs(9), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_the_wait_that_was_asked_for() {
    let rules =
        Rules { refuses: Some((429, Duration::from_secs(1))), retry_after: Some("3"), ..Rules::default() };
    let server = LimitedTeacher::start(rules).await;
    let teachers = replicas(&profile(&server, 4), 2);
    let answers =
        futures::future::join_all(teachers.iter().map(|teacher| work(teacher, 4, Duration::from_secs(5))))
            .await;
    let seen = server.seen();
    let first_answer = seen.iter().find(|request| request.status == 200).unwrap().at;
    let last_refusal = seen.iter().rfind(|request| request.status == 429).unwrap().at;
    assert!(server.statuses(429) <= 4, "one burst");
    assert!(first_answer >= last_refusal + Duration::from_secs(3), "{:?}", first_answer - last_refusal);
    assert!(answers.iter().sum::<usize>() > 0, "they go on: {answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teacher_that_is_down_is_probed_and_used_again() {
    let rules = Rules { refuses: Some((500, Duration::from_secs(3))), ..Rules::default() };
    let server = LimitedTeacher::start(rules).await;
    let teacher = &replicas(&profile(&server, 8), 1)[0];
    let watched = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let obstacle = teacher.obstacle().await.unwrap();
        let error = teacher.ask(question(), Arc::new(Unmetered)).await.unwrap_err();
        (obstacle, error)
    };
    // A probe that fails shortly before the teacher is back is followed by one that may be due only after these nine seconds: its
    // wait is drawn by lot, up to twice that of the one before.
    let worked = async {
        let mut answers = 0;
        for _turn in 0..3 {
            answers += work(teacher, 32, Duration::from_secs(9)).await;
            if answers > 100 {
                break;
            }
        }
        answers
    };
    let (answers, (obstacle, error)) = tokio::join!(worked, watched);
    assert!(server.statuses(500) <= 40, "{} calls while it was down", server.statuses(500));
    assert!(answers > 100, "{answers} answers afterwards");
    assert_eq!(obstacle.kind, ObstacleKind::Failed);
    assert!(obstacle.why.contains("500"), "{obstacle}");
    let TeacherError::Unavailable { failure, .. } = error else { panic!("{error}") };
    assert!(failure.message.contains("500"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_together_make_no_more_calls_at_once() {
    let server = LimitedTeacher::start(Rules::default()).await;
    let teachers = replicas(&profile(&server, 3), 3);
    let working =
        futures::future::join_all(teachers.iter().map(|teacher| work(teacher, 6, Duration::from_secs(3))));
    // Counted before the time is over: calls that are then dropped give their turn back while the server still answers them.
    let counted = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.most_in_flight()
    };
    let (answers, most) = tokio::join!(working, counted);
    assert_eq!(most, 3);
    // Three at once, each for 20 ms and some, for three seconds.
    assert!(answers.iter().sum::<usize>() > 100, "{answers:?}");
}

/// An account that remembers.
#[derive(Default)]
struct Remembered {
    reserved: Mutex<Vec<(CallId, CallBound)>>,
    ended: Mutex<Vec<CallEnd>>,
    refuses: Option<NotReserved>,
}

#[async_trait::async_trait]
impl CallAccount for Remembered {
    async fn reserve(&self, bound: CallBound) -> Result<CallId, NotReserved> {
        if let Some(reason) = &self.refuses {
            return Err(reason.clone());
        }
        let call = CallId::generate();
        self.reserved.lock().unwrap().push((call, bound));
        Ok(call)
    }

    async fn end(&self, _call: CallId, end: CallEnd) {
        self.ended.lock().unwrap().push(end);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_reserved_and_all_but_the_answered_one_are_ended() {
    let rules = Rules { refuses: Some((503, Duration::from_millis(300))), ..Rules::default() };
    let server = LimitedTeacher::start(rules).await;
    let profile = Profile { attempts_max: 20, ..profile(&server, 2) };
    let teacher = &replicas(&profile, 1)[0];
    let account = Arc::new(Remembered::default());
    let reply = loop {
        match teacher.ask(question(), Arc::clone(&account) as Arc<dyn CallAccount>).await {
            Ok(reply) => break reply,
            Err(TeacherError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let reserved = account.reserved.lock().unwrap().clone();
    assert_eq!(reserved.len(), server.seen().len(), "a reservation for each request");
    assert!(reserved.iter().all(|(_, bound)| *bound == profile.bound(&question())));
    assert_eq!(reserved.last().unwrap().0, reply.call);
    let ended = account.ended.lock().unwrap().clone();
    assert_eq!(ended, vec![CallEnd::Failed; reserved.len() - 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_room_on_its_account_is_not_made() {
    let server = LimitedTeacher::start(Rules::default()).await;
    let teacher = &replicas(&profile(&server, 1), 1)[0];
    for (reason, expected) in [
        (NotReserved::Later, TeacherError::BudgetLater),
        (NotReserved::Exhausted, TeacherError::BudgetExhausted),
        (NotReserved::LeaseLost, TeacherError::LeaseLost),
        (NotReserved::Unavailable("away".into()), TeacherError::Unaccounted("away".into())),
    ] {
        let account = Arc::new(Remembered { refuses: Some(reason), ..Remembered::default() });
        assert_eq!(teacher.ask(question(), account).await.unwrap_err(), expected);
    }
    assert_eq!(server.seen().len(), 0);
    // Its place among the calls at once is free again.
    assert!(teacher.ask(question(), Arc::new(Unmetered)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_ends_in_doubt_and_leaves_its_place() {
    let server = LimitedTeacher::start(Rules { latency: Duration::from_secs(1), ..Rules::default() }).await;
    let teacher = &replicas(&profile(&server, 1), 1)[0];
    let account = Arc::new(Remembered::default());
    let asked = teacher.ask(question(), Arc::clone(&account) as Arc<dyn CallAccount>);
    assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(*account.ended.lock().unwrap(), [CallEnd::InDoubt]);
    let began = Instant::now();
    assert!(teacher.ask(question(), Arc::new(Unmetered)).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(2), "its place was free");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_when_the_teacher_is_closed_is_released_at_once() {
    let server = LimitedTeacher::start(Rules { latency: Duration::from_secs(1), ..Rules::default() }).await;
    let limits = RateLimits { requests_per_minute: Some(2), ..RateLimits::default() };
    let teacher = &replicas(&Profile { limits, ..profile(&server, 8) }, 1)[0];
    let asked: Vec<_> = (0..12)
        .map(|_| {
            let teacher = teacher.clone();
            tokio::spawn(async move { teacher.ask(question(), Arc::new(Unmetered)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let obstacle = teacher.obstacle().await.unwrap();
    assert_eq!(obstacle.kind, ObstacleKind::Limit);
    assert!(obstacle.resumes_in.unwrap() > Duration::from_secs(20), "{obstacle}");
    let began = Instant::now();
    teacher.close();
    let (mut answered, mut closed) = (0, 0);
    for asked in asked {
        match asked.await.unwrap() {
            Ok(_) => answered += 1,
            Err(TeacherError::Closed) => closed += 1,
            // Told at the beginning that it would wait for more than a minute.
            Err(TeacherError::Wait { .. }) => closed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!((answered, closed), (1, 11), "the call in flight is answered");
}
