//! How close to a teacher's limits replicas keep that share one Redis: full figures, which take some minutes.
//!
//! ```text
//! cargo run -p teacher --example limits [rate] [half] [refusals] [throughput]
//! ```
//!
//! Each line is one figure, with what it should be. The teacher is a server of this program that counts the requests of the
//! last minute, refused ones included. Redis has to be installed: `scripts/services.sh`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people who develop")]
#![allow(clippy::indexing_slicing, reason = "as above")]

#[path = "../tests/limited/mod.rs"]
mod limited;

use distributed::{RedisRateLimiter, RedisServer};
use domain::ports::RateLimits;
use limited::{LimitedTeacher, Rules, Seen};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use teacher::{Profile, Provider, Question, Sampling, Teacher, TeacherError, Unmetered};
use tests::redis::Redis;

const MINUTE: Duration = Duration::from_secs(60);
const CONFIGURED: u64 = 6_000;

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redis = Redis::start().unwrap();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if wants("throughput") {
        throughput(&redis).await;
    }
    if wants("refusals") {
        refusals(&redis).await;
    }
    if wants("rate") {
        for replicas in [1, 4] {
            rate(&redis, replicas).await;
        }
    }
    if wants("half") {
        half(&redis).await;
    }
}

fn question() -> Question {
    Question {
        instruction: String::new(),
        prompt: "Q: 1 + 1?\nA:".into(),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, tokens_max: 16, stop: Vec::new(), sample: 0 },
    }
}

async fn replicas(
    redis: &Redis,
    server: &LimitedTeacher,
    requests_per_minute: Option<u64>,
    count: usize,
) -> Vec<Teacher> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("run-{}", RUNS.fetch_add(1, Ordering::Relaxed));
    let profile = Profile {
        limits: RateLimits { requests_per_minute, ..RateLimits::default() },
        concurrency_max: 256,
        ..Profile::new(&name, Provider::OpenAiCompletions, &server.url, "small")
    };
    let mut teachers = Vec::new();
    for _replica in 0..count {
        let connection = RedisServer::connect(&redis.url(), "limits").await.unwrap();
        let rate_limiter = Arc::new(RedisRateLimiter::new(&connection));
        teachers.push(Teacher::new(profile.clone(), rate_limiter).unwrap());
    }
    teachers
}

/// Asks so many prompts, or until the time is over, with so many workers for each teacher.
async fn work(teachers: &[Teacher], workers: usize, prompts: usize, time: Duration) -> usize {
    let (left, until) = (Arc::new(AtomicUsize::new(prompts)), Instant::now() + time);
    let mut working = Vec::new();
    for teacher in teachers {
        for _worker in 0..workers {
            let (teacher, left) = (teacher.clone(), Arc::clone(&left));
            working.push(tokio::spawn(async move {
                let mut answers = 0;
                while Instant::now() < until
                    && left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                        .is_ok()
                {
                    answers += usize::from(answer(&teacher, until).await);
                }
                answers
            }));
        }
    }
    let mut answers = 0;
    for worker in working {
        answers += worker.await.unwrap();
    }
    answers
}

/// Asks one prompt until it is answered, as the harvester does; whether it was before the time was over.
async fn answer(teacher: &Teacher, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match tokio::time::timeout(left, teacher.ask(question(), Arc::new(Unmetered))).await {
            Ok(Ok(_)) => return true,
            Ok(Err(TeacherError::Wait { wait, .. })) => tokio::time::sleep(wait.min(left)).await,
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(500).min(left)).await,
            Err(_over) => return false,
        }
    }
}

fn answered(seen: &[Seen], from: Duration, to: Duration) -> usize {
    let began = seen[0].at;
    seen.iter().filter(|seen| seen.status == 200 && (began + from..began + to).contains(&seen.at)).count()
}

async fn rate(redis: &Redis, count: usize) {
    let rules =
        Rules { limit: Some(CONFIGURED as usize), latency: Duration::from_millis(200), ..Rules::default() };
    let server = LimitedTeacher::start(rules).await;
    let teachers = replicas(redis, &server, Some(CONFIGURED), count).await;
    let answers = work(&teachers, 256 / count, 10_000, 5 * MINUTE).await;
    let seen = server.seen();
    let (from, to) = (Duration::from_secs(5), seen[seen.len() - 1].at - seen[0].at);
    let a_minute = answered(&seen, from, to) as f64 / (to - from).as_secs_f64() * 60.0;
    println!(
        "rate, {count} replicas: {answers} answers in {:.0} s; after 5 s {:.1}% of the limit (95 at least); \
         most in a minute {:.2}% (101 at most); refused {:.2}% (1 at most)",
        to.as_secs_f64(),
        a_minute / CONFIGURED as f64 * 100.0,
        server.most_in(MINUTE) as f64 / CONFIGURED as f64 * 100.0,
        server.statuses(429) as f64 / seen.len() as f64 * 100.0,
    );
}

async fn half(redis: &Redis) {
    let real = CONFIGURED as usize / 2;
    let rules = Rules { limit: Some(real), latency: Duration::from_millis(200), ..Rules::default() };
    let server = LimitedTeacher::start(rules).await;
    let teachers = replicas(redis, &server, Some(CONFIGURED), 2).await;
    work(&teachers, 128, usize::MAX, 3 * MINUTE).await;
    let seen = server.seen();
    let part =
        |minute: u32| answered(&seen, MINUTE * minute, MINUTE * (minute + 1)) as f64 / real as f64 * 100.0;
    println!(
        "real limit half the configured one: {:.1}%, {:.1}%, {:.1}% of it in the first three minutes (90 from the \
         second on); refused {} of {}",
        part(0),
        part(1),
        part(2),
        server.statuses(429),
        seen.len(),
    );
}

async fn refusals(redis: &Redis) {
    let rules = Rules { refuses: Some((429, 10 * MINUTE)), ..Rules::default() };
    let server = LimitedTeacher::start(rules).await;
    let teachers = replicas(redis, &server, Some(CONFIGURED), 2).await;
    let watched = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        teachers[0].obstacle().await.unwrap().to_string()
    };
    let (_answers, early) = tokio::join!(work(&teachers, 256, usize::MAX, 2 * MINUTE), watched);
    let obstacle = teachers[1].obstacle().await.unwrap();
    println!(
        "refusals only, 2 replicas: {} calls in two minutes (under 100); after 5 s `{early}`; then nothing answered for {} s",
        server.seen().len(),
        obstacle.since.elapsed().as_secs(),
    );
}

async fn throughput(redis: &Redis) {
    let time = Duration::from_secs(20);
    let rules = Rules { latency: Duration::from_millis(200), ..Rules::default() };
    let server = LimitedTeacher::start(rules).await;
    let bare = bare(&server, 256, time).await as f64;
    println!("bare generator: {bare} answers in {} s, 256 at once", time.as_secs());
    for count in [1, 3] {
        let server = LimitedTeacher::start(rules).await;
        let teachers = replicas(redis, &server, None, count).await;
        let answers = work(&teachers, 256, usize::MAX, time).await;
        println!(
            "throughput, {count} replicas: {answers} answers, {:.1}% of the bare generator (95 at least); most at once {}",
            answers as f64 / bare * 100.0,
            server.most_in_flight(),
        );
    }
}

async fn bare(server: &LimitedTeacher, workers: usize, time: Duration) -> usize {
    let (client, until) = (reqwest::Client::new(), Instant::now() + time);
    let body = serde_json::json!({"model": "small", "prompt": question().prompt, "max_tokens": 16});
    let worker = |_| {
        let (client, url, body) = (client.clone(), format!("{}/completions", server.url), body.clone());
        tokio::spawn(async move {
            let mut answers = 0;
            while Instant::now() < until {
                let response = client.post(&url).json(&body).send().await.unwrap();
                let _: serde_json::Value = response.json().await.unwrap();
                answers += 1;
            }
            answers
        })
    };
    let working: Vec<_> = (0..workers).map(worker).collect();
    let mut answers = 0;
    for worker in working {
        answers += worker.await.unwrap();
    }
    answers
}
