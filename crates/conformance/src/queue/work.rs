//! Entries: published, delivered at least once, kept, postponed, acknowledged.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::at_once;
use crate::harness::{CAPACITY, QueueHarness, VISIBILITY};
use domain::Queue;
use domain::ids::PromptId;
use domain::ports::{Delivery, QueueError, QueuedPrompt};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::ZERO;
/// A wait that no case reaches the end of, unless it is never woken.
const PATIENCE: Duration = Duration::from_secs(20);

fn work(count: usize) -> Vec<QueuedPrompt> {
    (0..count)
        .map(|place| QueuedPrompt {
            prompt: PromptId::generate(),
            traceparent: format!("00-{place:032x}-{place:016x}-01"),
        })
        .collect()
}

async fn filled(harness: &dyn QueueHarness, count: usize) -> (Arc<dyn Queue>, Vec<QueuedPrompt>) {
    let (queue, work) = (harness.queue(), work(count));
    assert_eq!(queue.publish(&work).await.unwrap(), count);
    (queue, work)
}

async fn taken(queue: &dyn Queue, consumer: &str, max: usize) -> Vec<Delivery> {
    queue.take(consumer, max, AT_ONCE).await.unwrap()
}

fn works(deliveries: &[Delivery]) -> Vec<QueuedPrompt> {
    deliveries.iter().map(|delivery| delivery.work.clone()).collect()
}

fn handles(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.handle.clone()).collect()
}

fn prompts(work: &[QueuedPrompt]) -> BTreeSet<PromptId> {
    work.iter().map(|work| work.prompt).collect()
}

/// A little more than the time of visibility.
fn run_out() -> Duration {
    VISIBILITY + VISIBILITY / 4
}

pub async fn work_comes_back_in_order_and_whole(harness: &dyn QueueHarness) {
    let (queue, mut work) = filled(harness, 5).await;
    let untraced = QueuedPrompt { prompt: PromptId::generate(), traceparent: String::new() };
    assert_eq!(queue.publish(std::slice::from_ref(&untraced)).await.unwrap(), 1);
    work.push(untraced);
    let first = taken(queue.as_ref(), "left", 2).await;
    let rest = taken(queue.as_ref(), "right", 100).await;
    assert_eq!([works(&first), works(&rest)].concat(), work);
    assert_eq!(first.len(), 2, "no more than were asked for");
    let names: BTreeSet<String> = [handles(&first), handles(&rest)].concat().into_iter().collect();
    assert_eq!(names.len(), 6, "each entry has a name of its own");
}

pub async fn an_empty_queue_gives_nothing(harness: &dyn QueueHarness) {
    let queue = harness.queue();
    assert_eq!(taken(queue.as_ref(), "worker", 10).await, []);
    assert_eq!(queue.take("worker", 10, Duration::from_millis(50)).await.unwrap(), []);
    assert_eq!(queue.depth().await.unwrap(), 0);
    assert_eq!(queue.publish(&[]).await.unwrap(), 0);
    queue.acknowledge(&[]).await.unwrap();
    queue.extend("worker", &[]).await.unwrap();
    assert_eq!(queue.missing(&[]).await.unwrap(), []);
}

pub async fn a_delivered_entry_is_hidden_until_its_visibility_ends(harness: &dyn QueueHarness) {
    let (queue, work) = filled(harness, 3).await;
    assert_eq!(taken(queue.as_ref(), "left", 2).await.len(), 2);
    let rest = taken(queue.as_ref(), "right", 10).await;
    assert_eq!(works(&rest), work[2..], "what was delivered is not delivered again");
    assert_eq!(taken(queue.as_ref(), "left", 10).await, [], "nor to its own consumer");
    harness.advance(VISIBILITY / 2).await;
    assert_eq!(taken(queue.as_ref(), "right", 10).await, [], "half of its visibility is left");
    queue.acknowledge(&handles(&rest)).await.unwrap();
    harness.advance(run_out()).await;
    let again = taken(queue.as_ref(), "right", 10).await;
    assert_eq!(prompts(&works(&again)), prompts(&work[..2]), "its consumer is silent: another gets it");
    assert!(again.iter().all(|delivery| work.contains(&delivery.work)), "whole: {again:?}");
    assert_eq!(taken(queue.as_ref(), "third", 10).await, [], "and hides it anew");
    harness.advance(run_out()).await;
    assert_eq!(taken(queue.as_ref(), "third", 10).await.len(), 2, "as often as it takes");
}

pub async fn an_acknowledged_entry_is_gone(harness: &dyn QueueHarness) {
    let (queue, work) = filled(harness, 3).await;
    let deliveries = taken(queue.as_ref(), "worker", 3).await;
    queue.acknowledge(&handles(&deliveries[..2])).await.unwrap();
    queue.acknowledge(&handles(&deliveries[..2])).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 1);
    harness.advance(run_out()).await;
    assert_eq!(works(&taken(queue.as_ref(), "other", 10).await), work[2..]);
}

pub async fn an_extended_entry_stays_with_its_consumer(harness: &dyn QueueHarness) {
    let (queue, work) = filled(harness, 2).await;
    let deliveries = taken(queue.as_ref(), "worker", 2).await;
    for _beat in 0..4 {
        harness.advance(VISIBILITY * 2 / 5).await;
        queue.extend("worker", &handles(&deliveries[..1])).await.unwrap();
    }
    let others = taken(queue.as_ref(), "other", 10).await;
    assert_eq!(works(&others), work[1..], "only the one that was not kept");
    queue.acknowledge(&handles(&others)).await.unwrap();
    queue.acknowledge(&handles(&deliveries[..1])).await.unwrap();
    queue.extend("worker", &handles(&deliveries)).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 0, "extending what is done brings nothing back");
    harness.advance(run_out()).await;
    assert_eq!(taken(queue.as_ref(), "other", 10).await, []);
}

pub async fn a_postponed_entry_comes_after_its_delay(harness: &dyn QueueHarness) {
    let (queue, work) = filled(harness, 3).await;
    let deliveries = taken(queue.as_ref(), "worker", 2).await;
    // One delay ends before the visibility would, the other after it.
    queue.postpone(&deliveries[0], VISIBILITY / 2).await.unwrap();
    queue.postpone(&deliveries[1], VISIBILITY * 5 / 2).await.unwrap();
    let passing = taken(queue.as_ref(), "worker", 10).await;
    assert_eq!(works(&passing), work[2..], "the others pass by");
    queue.acknowledge(&handles(&passing)).await.unwrap();
    harness.advance(VISIBILITY * 3 / 4).await;
    let first = taken(queue.as_ref(), "other", 10).await;
    assert_eq!(works(&first), work[..1]);
    queue.acknowledge(&handles(&first)).await.unwrap();
    harness.advance(VISIBILITY).await;
    assert_eq!(taken(queue.as_ref(), "other", 10).await, [], "the visibility of then does not count");
    harness.advance(VISIBILITY).await;
    let second = taken(queue.as_ref(), "other", 10).await;
    assert_eq!(works(&second), work[1..2]);
    queue.acknowledge(&handles(&second)).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 0, "postponing makes no copies");
}

pub async fn an_entry_postponed_by_nothing_comes_at_once(harness: &dyn QueueHarness) {
    let (queue, work) = filled(harness, 1).await;
    for _round in 0..3 {
        let delivery = taken(queue.as_ref(), "worker", 1).await.remove(0);
        queue.postpone(&delivery, Duration::ZERO).await.unwrap();
        let again = queue.take("worker", 1, PATIENCE).await.unwrap();
        assert_eq!(works(&again), work);
        queue.postpone(&again[0], Duration::ZERO).await.unwrap();
    }
    assert_eq!(queue.depth().await.unwrap(), 1);
}

pub async fn what_no_entry_names_is_missing(harness: &dyn QueueHarness) {
    let (queue, work) = filled(harness, 4).await;
    let deliveries = taken(queue.as_ref(), "worker", 3).await;
    queue.acknowledge(&handles(&deliveries[..1])).await.unwrap();
    queue.postpone(&deliveries[1], PATIENCE).await.unwrap();
    let (done, unknown) = (work[0].prompt, PromptId::generate());
    let asked: Vec<PromptId> = [unknown].into_iter().chain(work.iter().map(|work| work.prompt)).collect();
    let missing = queue.missing(&asked).await.unwrap();
    assert_eq!(missing, [unknown, done], "postponed, delivered and waiting entries are there");
}

pub async fn a_prompt_that_is_published_twice_has_one_entry(harness: &dyn QueueHarness) {
    let (queue, first) = filled(harness, 2).await;
    let both = [first.clone(), work(1)].concat();
    assert_eq!(queue.publish(&both).await.unwrap(), 3, "what is there already is published");
    assert_eq!(queue.depth().await.unwrap(), 3);
    let deliveries = taken(queue.as_ref(), "worker", 10).await;
    assert_eq!(works(&deliveries), both);
    queue.postpone(&deliveries[0], PATIENCE).await.unwrap();
    queue.acknowledge(&handles(&deliveries[1..2])).await.unwrap();
    assert_eq!(queue.publish(&both).await.unwrap(), 3, "delivered and postponed entries are entries");
    assert_eq!(works(&taken(queue.as_ref(), "worker", 10).await), both[1..2], "one that is done is not");
    assert_eq!(queue.missing(&both.iter().map(|work| work.prompt).collect::<Vec<_>>()).await.unwrap(), []);
}

pub async fn the_bound_holds_until_entries_are_acknowledged(harness: &dyn QueueHarness) {
    let (queue, first) = filled(harness, CAPACITY - 3).await;
    let more = work(5);
    assert_eq!(queue.publish(&more).await.unwrap(), 3, "as many as fit");
    assert_eq!(queue.depth().await.unwrap(), CAPACITY);
    let full = |published| matches!(published, Err(QueueError::Full { capacity: CAPACITY }));
    assert!(full(queue.publish(&more[3..]).await), "full, and it says its bound");
    assert_eq!(queue.publish(&[]).await.unwrap(), 0, "nothing fits always");
    let deliveries = taken(queue.as_ref(), "worker", 2).await;
    assert!(full(queue.publish(&more[3..]).await), "delivered entries count");
    queue.postpone(&deliveries[0], PATIENCE).await.unwrap();
    assert!(full(queue.publish(&more[3..]).await), "postponed ones, too");
    queue.acknowledge(&handles(&deliveries[1..])).await.unwrap();
    assert_eq!(queue.publish(&more[3..]).await.unwrap(), 1, "room again");
    let rest = works(&taken(queue.as_ref(), "worker", 2 * CAPACITY).await);
    assert_eq!(rest, [&first[2..], &more[..4]].concat(), "what did not fit is not there");
}

pub async fn depth_counts_what_waits_and_what_is_delivered(harness: &dyn QueueHarness) {
    let (queue, _) = filled(harness, 6).await;
    let deliveries = taken(queue.as_ref(), "worker", 4).await;
    assert_eq!(queue.depth().await.unwrap(), 6);
    queue.postpone(&deliveries[0], PATIENCE).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 6);
    queue.acknowledge(&handles(&deliveries[1..3])).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 4);
}

/// What a consumer that waits gets when `then` happens; it must not have waited to the end.
async fn woken(queue: Arc<dyn Queue>, then: impl Future<Output = ()>) -> Vec<Delivery> {
    let began = Instant::now();
    let waiting = tokio::spawn(async move { queue.take("worker", 10, PATIENCE).await.unwrap() });
    // Long enough that it really waits; shorter would only test less.
    tokio::time::sleep(Duration::from_millis(100)).await;
    then.await;
    let deliveries = waiting.await.unwrap();
    assert!(began.elapsed() < PATIENCE, "it slept through what it waited for");
    deliveries
}

pub async fn a_waiting_consumer_wakes_when_work_is_published(harness: &dyn QueueHarness) {
    let (queue, work) = (harness.queue(), work(1));
    let deliveries = woken(harness.queue(), async {
        queue.publish(&work).await.unwrap();
    })
    .await;
    assert_eq!(works(&deliveries), work);
}

pub async fn a_waiting_consumer_wakes_when_an_entry_is_due(harness: &dyn QueueHarness) {
    let (queue, work) = filled(harness, 1).await;
    let delivery = taken(queue.as_ref(), "gone", 1).await.remove(0);
    let deliveries = woken(harness.queue(), async {}).await;
    assert_eq!(works(&deliveries), work, "its visibility ended");
    queue.postpone(&deliveries[0], VISIBILITY / 2).await.unwrap();
    let deliveries = woken(harness.queue(), async {}).await;
    assert_eq!(works(&deliveries), work, "its delay ended");
    queue.acknowledge(&[delivery.handle, deliveries[0].handle.clone()]).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 0);
}

pub async fn every_waiting_consumer_gets_its_share(harness: &dyn QueueHarness) {
    let (queue, work, began) = (harness.queue(), work(4), Instant::now());
    let waiting: Vec<_> = (0..4)
        .map(|consumer| {
            let queue = harness.queue();
            tokio::spawn(async move { queue.take(&format!("worker-{consumer}"), 1, PATIENCE).await.unwrap() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    queue.publish(&work).await.unwrap();
    let mut found = Vec::new();
    for consumer in waiting {
        found.extend(works(&consumer.await.unwrap()));
    }
    assert_eq!((found.len(), prompts(&found)), (4, prompts(&work)), "one each");
    assert!(began.elapsed() < PATIENCE, "some slept through it");
}

pub async fn consumers_share_nothing(harness: &dyn QueueHarness) {
    let (_, work) = filled(harness, CAPACITY).await;
    let found = at_once(8, |consumer| {
        let queue = harness.queue();
        async move {
            let mut found = Vec::new();
            loop {
                let deliveries = queue.take(&format!("worker-{consumer}"), 3, AT_ONCE).await.unwrap();
                if deliveries.is_empty() {
                    return found;
                }
                found.extend(works(&deliveries));
                queue.acknowledge(&handles(&deliveries)).await.unwrap();
            }
        }
    })
    .await
    .concat();
    assert_eq!((found.len(), prompts(&found)), (CAPACITY, prompts(&work)), "every entry once");
    assert_eq!(harness.queue().depth().await.unwrap(), 0);
}

pub async fn publishers_never_exceed_the_bound_nor_lose_anything(harness: &dyn QueueHarness) {
    let published = at_once(8, |_| {
        let (queue, work) = (harness.queue(), work(20));
        async move {
            let mut fitted = Vec::new();
            for chunk in work.chunks(6) {
                match queue.publish(chunk).await {
                    Ok(count) => fitted.extend_from_slice(&chunk[..count]),
                    Err(QueueError::Full { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            fitted
        }
    })
    .await
    .concat();
    let queue = harness.queue();
    assert_eq!((published.len(), queue.depth().await.unwrap()), (CAPACITY, CAPACITY));
    let found = works(&taken(queue.as_ref(), "worker", 2 * CAPACITY).await);
    assert_eq!(prompts(&found), prompts(&published), "what was taken in is there");
}
