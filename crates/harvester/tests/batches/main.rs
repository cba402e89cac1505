//! Jobs that are asked through a provider's batch API, by processes that are killed: each row is billed once, at half price.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod lives;
mod provider;

use domain::Stores;
use domain::budget::Amount;
use domain::metric::SplitMix;
use domain::records::{Distillation, HarvestProgress};
use domain::state::{BatchState, DistillationState, PromptState, Verdict};
use lives::{Job, Place, Process, Wanted};
use provider::{Faults, Standin, TOKENS};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use teacher::Provider;
use wire::v1;

/// What an answer costs at half price: a millionth for a token in, two for one out.
const HALF: u64 = (TOKENS.0 + 2 * TOKENS.1) / 2;

/// That each of `rows` rows was answered and billed once, at half price, and nothing else was spent.
fn check_bill(standin: &Standin, progress: &HarvestProgress, rows: u64) {
    let billed = standin.billed();
    let more: Vec<_> = billed.iter().filter(|(_, times)| **times != 1).collect();
    assert_eq!((billed.len() as u64, more.len()), (rows, 0), "billed more than once: {more:?}; {progress:?}");
    assert_eq!(progress.in_state(PromptState::Answered), rows);
    assert_eq!(progress.with_verdict(Verdict::Accepted), rows);
    assert_eq!(progress.money_micros, rows * HALF, "half price");
    assert_eq!((progress.tokens_in, progress.tokens_out), (rows * TOKENS.0, rows * TOKENS.1));
    assert_eq!(progress.calls, standin.asked(), "what the provider did not ask is not counted");
    assert_eq!(progress.calls_paid_twice, 0);
    assert_eq!((progress.open, progress.in_doubt), (Amount::default(), Amount::default()));
    assert_eq!(standin.marked_twice(), 0);
}

/// Kills a process: every third at any time, the others around what they ask of the provider.
fn kill_at_random(process: Process, standin: &Standin, kill: u64, random: &mut SplitMix, longest: Duration) {
    let milliseconds = u64::try_from(longest.as_millis()).unwrap();
    if kill.is_multiple_of(3) {
        return process.kill_after(Duration::from_millis(random.below(milliseconds)));
    }
    let moment = Duration::from_millis(random.below(30));
    process.kill_behind(standin, 1 + random.below(6), moment, longest);
}

/// Runs a job to the end of its harvest, through so many processes that are killed at moments of chance before.
fn harvest(
    place: &Place,
    standin: &Standin,
    job: Job,
    kills: u64,
    seed: u64,
) -> (Distillation, HarvestProgress) {
    let id = Process::start(place, standin).make(job);
    let mut random = SplitMix::new(seed);
    for kill in 0..kills {
        kill_at_random(
            Process::start(place, standin),
            standin,
            kill,
            &mut random,
            Duration::from_millis(300),
        );
    }
    Process::start(place, standin).run(id, Wanted::State(DistillationState::Training))
}

/// One life of processes at a time: each has its own workers and a stand-in, and two cores carry few of them.
static ONE: Mutex<()> = Mutex::new(());

fn check(shape: Provider, faults: Faults, count: u64, kills: u64, seed: u64) -> Standin {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let (place, standin) = (Place::Folder(folder.path().to_owned()), Standin::start(shape, faults));
    let (_, progress) = harvest(&place, &standin, Job::of(count), kills, seed);
    check_bill(&standin, &progress, count);
    standin
}

#[test]
fn each_row_is_billed_once_at_half_price() {
    for shape in [Provider::OpenAiChat, Provider::Anthropic, Provider::Gemini] {
        let standin = check(shape, Faults::default(), 150, 0, 1);
        // The rows of the smoke gate, the others, and those that failed.
        assert_eq!(standin.counts().0, 4, "{shape:?}");
        assert_eq!(standin.lines_max(), 134, "{shape:?}: waves go out together");
    }
}

#[test]
fn an_expired_batch_keeps_what_it_brought() {
    for shape in [Provider::OpenAiChat, Provider::Anthropic, Provider::Gemini] {
        let faults = Faults { expires: Some(2), ..Faults::default() };
        check(shape, faults, 150, 0, 2);
    }
}

#[test]
fn a_batch_whose_creation_was_not_answered_is_found_again() {
    for shape in [Provider::OpenAiChat, Provider::Anthropic, Provider::Gemini] {
        let faults = Faults { lost_replies: &[1, 2], error_every: 0, ..Faults::default() };
        let standin = check(shape, faults, 150, 0, 3);
        assert_eq!(standin.counts().0, 2, "{shape:?}: nothing was submitted twice");
        let faults = Faults { failed_creates: &[1, 3], error_every: 0, ..Faults::default() };
        let standin = check(shape, faults, 60, 0, 4);
        assert_eq!(standin.counts().0, 2, "{shape:?}: what was not there was submitted again");
    }
}

#[test]
fn killed_processes_submit_and_pay_nothing_twice() {
    for (shape, seed) in [(Provider::OpenAiChat, 5), (Provider::Anthropic, 6), (Provider::Gemini, 7)] {
        let faults = Faults { expires: Some(3), lost_replies: &[2], ..Faults::default() };
        check(shape, faults, 2_500, 12, seed);
    }
}

#[test]
fn killed_processes_submit_and_pay_nothing_twice_in_a_cluster() {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = tests::postgres::Postgres::start().unwrap();
    let place = Place::migrated(&server.url());
    let faults = Faults { expires: Some(3), lost_replies: &[2], ..Faults::default() };
    let standin = Standin::start(Provider::OpenAiChat, faults);
    let (_, progress) = harvest(&place, &standin, Job::of(2_500), 12, 8);
    check_bill(&standin, &progress, 2_500);
}

#[test]
fn a_batch_that_was_filled_and_not_sealed_goes_out() {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let standin = Standin::start(Provider::OpenAiChat, Faults { error_every: 0, ..Faults::default() });
    let id = Process::start(&place, &standin).make(Job { smoke_rows: 0, ..Job::of(20) });
    place.fill_unsealed(id, 20);
    let (_, progress) = Process::start(&place, &standin).run(id, Wanted::State(DistillationState::Training));
    check_bill(&standin, &progress, 20);
    assert_eq!(standin.counts().0, 1);
}

/// Waits until a job has a submitted batch of so many lines.
async fn submitted(stores: &Stores, job: domain::ids::DistillationId, lines: u64) {
    let began = Instant::now();
    loop {
        let batches = stores.batches.batches(job).await.unwrap();
        let is_there =
            |batch: &domain::records::Batch| batch.state == BatchState::Submitted && batch.lines == lines;
        if batches.iter().any(is_there) {
            return;
        }
        assert!(began.elapsed() < lives::WAIT_MAX, "{batches:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_job_that_stops_cancels_its_batches_and_keeps_what_they_brought() {
    for (shape, is_cancelled) in [
        (Provider::OpenAiChat, false),
        (Provider::OpenAiChat, true),
        (Provider::Anthropic, false),
        (Provider::Gemini, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().to_owned());
        let faults = Faults { takes: Duration::from_secs(2), error_every: 0, ..Faults::default() };
        let standin = Standin::start(shape, faults);
        let job = Job { smoke_rows: 0, ..Job::of(50) };
        let process = Process::start(&place, &standin);
        let id = process.make(job);
        let process = Process::start(&place, &standin);
        let (progress, told) = process.act(async move |stores, process| {
            submitted(&stores, id, 50).await;
            let told = process.told(id).await;
            let waiting = &told.harvest.as_ref().unwrap().obstacle;
            assert_eq!(waiting, "a batch of 50 lines has been at the provider for 0 min");
            assert_eq!(told.batches.len(), 1);
            assert_eq!((told.batches[0].state(), told.batches[0].lines), (v1::BatchState::Submitted, 50));
            assert_ne!(told.batches[0].name, "");
            let reason = "a person looks";
            let stopped = if is_cancelled {
                stores.jobs.cancel(id, reason).await
            } else {
                stores.jobs.pause(id, reason).await
            };
            stopped.unwrap();
            let began = Instant::now();
            while stores
                .batches
                .batches(id)
                .await
                .unwrap()
                .iter()
                .any(|batch| batch.state != BatchState::Ended)
            {
                assert!(began.elapsed() < lives::WAIT_MAX);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (stores.prompts.harvest_progress(id).await.unwrap(), process.told(id).await)
        });
        assert_eq!((told.batches[0].state(), &*told.batches[0].note), (v1::BatchState::Ended, "cancelled"));
        assert_eq!(told.harvest.unwrap().obstacle, "");
        assert_eq!(standin.counts(), (1, 1), "{shape:?}: cancelled once");
        assert_eq!(progress.in_state(PromptState::Answered), 30, "{shape:?}: what was paid for is kept");
        assert_eq!(progress.in_state(PromptState::Pending), 20, "{shape:?}: the rest waits");
        assert_eq!((progress.calls, progress.money_micros), (30, 30 * HALF), "{shape:?}");
        assert_eq!(progress.open, Amount::default(), "{shape:?}");
        if !is_cancelled {
            let process = Process::start(&place, &standin);
            process.act(async move |stores, _| drop(stores.jobs.resume(id).await.unwrap()));
            let (_, progress) =
                Process::start(&place, &standin).run(id, Wanted::State(DistillationState::Training));
            check_bill(&standin, &progress, 50);
        }
    }
}

#[test]
fn a_budget_holds_for_batches() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let faults = Faults { error_every: 0, ..Faults::default() };
    let standin = Standin::start(Provider::OpenAiChat, faults);
    let job = Job { smoke_rows: 0, calls: Some(40), ..Job::of(100) };
    let (_, progress) = harvest(&place, &standin, job, 2, 9);
    assert_eq!((progress.calls, standin.asked()), (40, 40));
    assert_eq!(progress.in_state(PromptState::Skipped), 60);
}

/// The whole of it: `cargo test -p harvester --test batches -- --ignored --nocapture a_hundred`.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_and_twenty_thousand_rows_through_twenty_kills() {
    let (count, began) = (120_000, Instant::now());
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let faults =
        Faults { expires: Some(3), lost_replies: &[2], takes: Duration::from_secs(8), ..Faults::default() };
    let standin = Standin::start(Provider::OpenAiChat, faults);
    let id = Process::start(&place, &standin).make(Job::of(count));
    let mut random = SplitMix::new(11);
    for kill in 0..20 {
        // The first kills fall into the planning.
        let longest = Duration::from_secs(if kill < 3 { 8 } else { 60 });
        kill_at_random(Process::start(&place, &standin), &standin, kill + 1, &mut random, longest);
        let (batches, _) = standin.counts();
        println!(
            "kill {kill} after {:?}: {batches} batches, {} MB",
            began.elapsed(),
            lives::resident_megabytes()
        );
    }
    let (_, progress) = Process::start(&place, &standin).run(id, Wanted::State(DistillationState::Training));
    let (batches, _) = standin.counts();
    println!(
        "{count} rows, {batches} batches, {} calls, {} millionths of money in {:?}, {} MB resident at most",
        progress.calls,
        progress.money_micros,
        began.elapsed(),
        lives::peak_megabytes()
    );
    check_bill(&standin, &progress, count);
}
