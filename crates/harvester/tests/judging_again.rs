//! A ledger is judged again under other rules: what would change, in how long, and in how much memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot be set up has failed"
)]

use conformance::fixtures;
use domain::Answer;
use domain::example::Example;
use domain::spec::TeacherSource;
use domain::state::DistillationState;
use domain::{JobStore, Queue, Stores};
use embedded::{MemoryQueue, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use wire::v1;
use wire::v1::rationales_service_client::RationalesServiceClient;

/// Every row has two answers, one of which agrees; each is as long as a real one.
fn answered(index: u64) -> Example {
    let text = format!("Row {index}: {}", "we add one to the number that is given. ".repeat(8));
    let answer =
        |label: String| Answer::Rationale { teacher: "palm".into(), text: text.clone(), label: Some(label) };
    let answers = vec![answer(format!("({index} + 1)")), answer("(0 - 1)".to_owned())];
    Example { answers, ..fixtures::row(index) }
}

/// Judges a ledger of so many rows without `agree`; returns the last message, how long it took, and KiB.
async fn judged(rows: u64) -> (v1::JudgeRationalesResponse, Duration, u64) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
    let dataset = {
        use domain::DatasetStore;
        let staged = store.create_dataset(domain::ids::RequestId::generate(), "rows").await.unwrap();
        for from in (0..rows).step_by(1_000) {
            let chunk = (from..rows.min(from + 1_000)).map(answered).collect();
            store.append_rows(staged.id, from, chunk).await.unwrap();
        }
        store.commit_dataset(staged.id, "fingerprint").await.unwrap()
    };
    let mut spec = fixtures::spec(fixtures::NAME);
    spec.teacher.as_mut().unwrap().source = TeacherSource::Imported;
    let job = fixtures::job(store.as_ref(), spec, dataset.id).await.id;
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(100, Duration::from_secs(30)));
    let harvester = Harvester::new(Settings::new("test"), Stores::of(&store), queue, BTreeMap::new());
    let shutdown = CancellationToken::new();
    let (works, end) = (harvester.clone(), shutdown.clone());
    let running = tokio::spawn(async move { works.run(end).await });
    while store.distillation(job).await.unwrap().state != DistillationState::Training {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.cancel();
    running.await.unwrap();
    let mut client = RationalesServiceClient::new(harvester.routes());
    let judging = v1::JudgingSpec { agree: Some(false), ..Default::default() };
    let request = v1::JudgeRationalesRequest { distillation_id: job.to_string(), judging: Some(judging) };
    let (before, began) = (resident_kib(), Instant::now());
    let mut messages = client.judge_rationales(request).await.unwrap().into_inner();
    let mut last = v1::JudgeRationalesResponse::default();
    while let Some(message) = messages.message().await.unwrap() {
        assert!(message.rows >= last.rows && !last.done);
        last = message;
    }
    let (took, grown) = (began.elapsed(), resident_kib().saturating_sub(before));
    eprintln!("{} entries judged again in {took:?}, {grown} KiB more in memory", 2 * rows);
    (last, took, grown)
}

/// Memory that this process has; 0 where the system does not say.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn check(last: &v1::JudgeRationalesResponse, rows: u64) {
    let fates: Vec<(i32, i32, i32, u64)> = last
        .judged
        .iter()
        .map(|judged| (judged.verdict_before, judged.reason_before, judged.verdict_after, judged.entries))
        .collect();
    let (accepted, rejected) = (v1::Verdict::Accepted.into(), v1::Verdict::Rejected.into());
    let disagrees = v1::Reason::Disagrees.into();
    assert_eq!(fates, [(accepted, 0, accepted, rows), (rejected, disagrees, accepted, rows)]);
    assert_eq!((last.rows, last.done), (rows, true));
}

#[tokio::test]
async fn other_rules_show_what_would_change() {
    let (last, ..) = judged(1_203).await;
    check(&last, 1_203);
}

#[tokio::test]
#[ignore = "a measurement: 100,000 entries within ten seconds"]
async fn a_hundred_thousand_entries_take_seconds() {
    let (last, took, grown_kib) = judged(50_000).await;
    check(&last, 50_000);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(grown_kib < 64 * 1024, "{grown_kib} KiB");
}
