//! The queue on a real Redis: the suite of its port, and what only a server can do to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod server;

use conformance::harness::{CAPACITY, VISIBILITY};
use distributed::{RedisError, RedisQueue, RedisServer};
use domain::ids::PromptId;
use domain::ports::{Delivery, QueueError, QueuedPrompt};
use domain::{Fault, Queue};
use redis::AsyncCommands;
use server::{Prefix, connect, prefix, shared};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::redis::Redis;

conformance::queue_suite!(Prefix::open);

/// A wait that no test reaches the end of, unless it is never woken.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn work(count: usize) -> Vec<QueuedPrompt> {
    (0..count)
        .map(|_| QueuedPrompt { prompt: PromptId::generate(), traceparent: "00-1-2-01".to_owned() })
        .collect()
}

fn prompts<'a>(work: impl IntoIterator<Item = &'a QueuedPrompt>) -> BTreeSet<PromptId> {
    work.into_iter().map(|work| work.prompt).collect()
}

fn handles(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.handle.clone()).collect()
}

/// A queue of the test's own with another bound and another time of visibility, and its prefix.
async fn queue(redis: &Redis, capacity: usize, visibility: Duration) -> (Arc<RedisQueue>, String) {
    let prefix = prefix();
    (Arc::new(RedisQueue::new(&connect(redis, &prefix).await, capacity, visibility)), prefix)
}

/// A connection of the test's own, to look and meddle with.
async fn commands(redis: &Redis) -> redis::aio::MultiplexedConnection {
    redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Calls until the server is back; anything but `Unavailable` before that fails the test.
async fn until_available<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, QueueError>>,
{
    let began = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(QueueError::Unavailable(_)) if began.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_flushall_took_is_missing_and_can_be_published_again() {
    let redis = Redis::start().unwrap();
    let (queue, _) = queue(&redis, CAPACITY, VISIBILITY).await;
    let work = work(20);
    let all: Vec<PromptId> = work.iter().map(|work| work.prompt).collect();
    queue.publish(&work).await.unwrap();
    let before = queue.take("worker", 5, Duration::ZERO).await.unwrap();
    queue.postpone(&before[4], PATIENCE).await.unwrap();
    redis.flush_all().unwrap();
    // Calls about delivered entries succeed as if nothing had happened, and change nothing.
    queue.extend("worker", &handles(&before)).await.unwrap();
    queue.acknowledge(&handles(&before[..2])).await.unwrap();
    queue.postpone(&before[3], Duration::ZERO).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 0);
    assert_eq!(queue.missing(&all).await.unwrap(), all);
    assert_eq!(queue.take("worker", 5, Duration::ZERO).await.unwrap(), []);
    assert_eq!(queue.publish(&work).await.unwrap(), 20, "the group is made again, from the beginning");
    let after = queue.take("worker", 50, PATIENCE).await.unwrap();
    assert_eq!(prompts(after.iter().map(|delivery| &delivery.work)), prompts(&work));
    queue.acknowledge(&handles(&after)).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_single_lost_key_keeps_a_prompt_from_being_published_again() {
    for lost in ["work", "postponed", "index"] {
        let (queue, prefix) = queue(shared(), CAPACITY, SHORT).await;
        let work = work(12);
        let all: Vec<PromptId> = work.iter().map(|work| work.prompt).collect();
        queue.publish(&work).await.unwrap();
        let held = queue.take("worker", 6, Duration::ZERO).await.unwrap();
        queue.acknowledge(&handles(&held[..1])).await.unwrap();
        for delivery in &held[1..4] {
            queue.postpone(delivery, SHORT / 4).await.unwrap();
        }
        let removed: usize = commands(shared()).await.del(format!("{{{prefix}}}:{lost}")).await.unwrap();
        assert_eq!(removed, 1, "{lost}");
        // As the reconciler does: what is missing is published again.
        let unfinished = &all[1..];
        let missing: BTreeSet<PromptId> = queue.missing(unfinished).await.unwrap().into_iter().collect();
        let gone = match lost {
            "work" => [&all[4..]].concat(),
            "postponed" => all[1..4].to_vec(),
            _ => Vec::new(),
        };
        assert_eq!(missing, gone.iter().copied().collect(), "{lost}");
        let again: Vec<QueuedPrompt> =
            work.iter().filter(|work| missing.contains(&work.prompt)).cloned().collect();
        assert_eq!(queue.publish(&again).await.unwrap(), again.len());
        assert_eq!(queue.missing(unfinished).await.unwrap(), [], "{lost}");
        assert_eq!(queue.depth().await.unwrap(), unfinished.len(), "{lost}: no entry twice");
        let (mut found, began) = (BTreeSet::new(), Instant::now());
        while found.len() < unfinished.len() {
            assert!(began.elapsed() < PATIENCE, "{lost}: {} were delivered", found.len());
            let taken = queue.take("other", 50, SHORT).await.unwrap();
            queue.acknowledge(&handles(&taken)).await.unwrap();
            found.extend(taken.iter().map(|delivery| delivery.work.prompt));
        }
        assert_eq!(found, unfinished.iter().copied().collect(), "{lost}");
        assert_eq!(queue.depth().await.unwrap(), 0, "{lost}");
        assert_eq!(queue.missing(&all).await.unwrap(), all, "{lost}: what is done has no entry");
    }
}

#[tokio::test]
async fn a_redis_that_removes_keys_is_refused_at_the_start_and_told_of_when_it_comes_back() {
    let redis = Redis::start().unwrap();
    let (queue, prefix) = queue(&redis, CAPACITY, VISIBILITY).await;
    let mut settings = commands(&redis).await;
    let mut set = async |name: &str, value: &str| {
        let _ok: String =
            redis::cmd("CONFIG").arg(("SET", name, value)).query_async(&mut settings).await.unwrap();
    };
    set("maxmemory-policy", "volatile-lru").await;
    connect(&redis, &prefix).await;
    set("maxmemory", "100mb").await;
    let error: RedisError = RedisServer::connect(&redis.url(), &prefix).await.unwrap_err();
    assert!(error.to_string().contains("maxmemory-policy noeviction"), "{error}");
    assert_eq!(error.fault(), Fault::Conflict);
    // The connection of before goes on, and says so as soon as it opens another.
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    assert_eq!(queue.take("worker", 1, Duration::ZERO).await.unwrap(), []);
    queue.publish(&work(1)).await.unwrap();
    let logging = tracing::subscriber::set_default(subscriber);
    assert_eq!(queue.take("worker", 1, PATIENCE).await.unwrap().len(), 1);
    drop(logging);
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("WARN") && logged.contains("maxmemory-policy noeviction"), "{logged}");
    set("maxmemory-policy", "noeviction").await;
    connect(&redis, &prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_wait_outlive_flushall_and_restarts() {
    let redis = Redis::start().unwrap();
    let (queue, _) = queue(&redis, CAPACITY, VISIBILITY).await;
    for fault in ["FLUSHALL", "stop", "kill"] {
        let work = work(6);
        let waiting: Vec<_> = (0..3)
            .map(|consumer| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move {
                    let consumer = format!("worker-{consumer}");
                    let mut found = Vec::new();
                    while found.len() < 2 {
                        let taken =
                            until_available(|| queue.take(&consumer, 2 - found.len(), PATIENCE)).await;
                        let handles = handles(&taken);
                        until_available(|| queue.acknowledge(&handles)).await;
                        found.extend(taken.into_iter().map(|delivery| delivery.work));
                    }
                    found
                })
            })
            .collect();
        // Long enough that they really wait; shorter would only test less.
        tokio::time::sleep(SHORT).await;
        match fault {
            "FLUSHALL" => redis.flush_all().unwrap(),
            "stop" => redis.stop().unwrap(),
            _ => redis.kill().unwrap(),
        }
        if fault != "FLUSHALL" {
            tokio::time::sleep(SHORT).await;
            redis.restart().unwrap();
        }
        assert_eq!(until_available(|| queue.publish(&work)).await, 6, "{fault}");
        let mut found = Vec::new();
        for consumer in waiting {
            found.extend(consumer.await.unwrap());
        }
        assert_eq!(prompts(&found), prompts(&work), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_every_call_is_unavailable_and_ends() {
    let redis = Redis::start().unwrap();
    let (queue, _) = queue(&redis, CAPACITY, VISIBILITY).await;
    queue.publish(&work(2)).await.unwrap();
    let delivery = queue.take("worker", 1, Duration::ZERO).await.unwrap().remove(0);
    let handle = [delivery.handle.clone()];
    redis.kill().unwrap();
    let began = Instant::now();
    for _call in 0..2 {
        let results = [
            queue.publish(&work(1)).await.map(drop),
            queue.take("worker", 1, Duration::ZERO).await.map(drop),
            queue.take("worker", 1, PATIENCE).await.map(drop),
            queue.acknowledge(&handle).await,
            queue.extend("worker", &handle).await,
            queue.postpone(&delivery, PATIENCE).await,
            queue.missing(&[delivery.work.prompt]).await.map(drop),
            queue.depth().await.map(drop),
        ];
        for (result, call) in results.into_iter().zip(0..) {
            let error = result.unwrap_err();
            assert_eq!(error.fault(), Fault::Unavailable, "call {call}: {error}");
        }
    }
    assert!(began.elapsed() < 2 * PATIENCE, "{:?}", began.elapsed());
    redis.restart().unwrap();
    assert_eq!(until_available(|| queue.depth()).await, 0, "it has forgotten everything");
    let work = work(1);
    queue.publish(&work).await.unwrap();
    let again = queue.take("worker", 1, PATIENCE).await.unwrap();
    assert_eq!(prompts(again.iter().map(|delivery| &delivery.work)), prompts(&work));
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_that_share_a_server_share_nothing_else() {
    let (left, _) = queue(shared(), CAPACITY, SHORT).await;
    let (right, _) = queue(shared(), CAPACITY, SHORT).await;
    let work = work(CAPACITY);
    left.publish(&work).await.unwrap();
    assert_eq!(right.depth().await.unwrap(), 0);
    assert_eq!(right.missing(&[work[0].prompt]).await.unwrap(), [work[0].prompt]);
    assert_eq!(right.publish(&work[..2]).await.unwrap(), 2, "a full queue fills no other");
    let taken = left.take("worker", 2, Duration::ZERO).await.unwrap();
    right.acknowledge(&handles(&taken)).await.unwrap();
    assert_eq!(left.depth().await.unwrap(), CAPACITY);
    tokio::time::sleep(SHORT + SHORT / 2).await;
    assert_eq!(right.take("worker", 100, Duration::ZERO).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_are_one_queue() {
    let prefix = prefix();
    let server = [connect(shared(), &prefix).await, connect(shared(), &prefix).await];
    let [left, right] = server.each_ref().map(|server| RedisQueue::new(server, 4, PATIENCE));
    let work = work(6);
    assert_eq!(left.publish(&work[..3]).await.unwrap(), 3);
    assert_eq!(right.publish(&work[3..]).await.unwrap(), 1);
    assert!(matches!(left.publish(&work[4..]).await, Err(QueueError::Full { capacity: 4 })));
    let taken = right.take("right", 2, Duration::ZERO).await.unwrap();
    assert_eq!(left.take("left", 9, Duration::ZERO).await.unwrap().len(), 2, "and never the same");
    left.acknowledge(&handles(&taken)).await.unwrap();
    assert_eq!(right.depth().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_batch_is_published_and_looked_for() {
    let (queue, _) = queue(shared(), 2_700, PATIENCE).await;
    let work = work(3_000);
    assert_eq!(queue.publish(&work).await.unwrap(), 2_700, "as many as fit, over three batches");
    let all: Vec<PromptId> = work.iter().map(|work| work.prompt).collect();
    assert_eq!(queue.missing(&all).await.unwrap(), all[2_700..]);
    let mut found = Vec::new();
    while found.len() < 2_700 {
        let taken = queue.take("worker", 5_000, Duration::ZERO).await.unwrap();
        assert!(!taken.is_empty(), "{} were found", found.len());
        queue.acknowledge(&handles(&taken)).await.unwrap();
        found.extend(taken.into_iter().map(|delivery| delivery.work));
    }
    assert_eq!(found, work[..2_700], "in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_of_what_is_forgotten_is_not_the_end() {
    let (queue, prefix) = queue(shared(), 1_000, Duration::from_secs(2)).await;
    let work = work(200);
    queue.publish(&work).await.unwrap();
    let taken = queue.take("silent", 200, Duration::ZERO).await.unwrap();
    // The last one was delivered long ago, the others just now: pages of the server hold ten entries here.
    let last = taken[199].handle.split(' ').next().unwrap();
    let idle: Vec<String> = redis::cmd("XCLAIM")
        .arg(format!("{{{prefix}}}:work"))
        .arg(("workers", "silent", 0, last, "IDLE", 600_000, "JUSTID"))
        .query_async(&mut commands(shared()).await)
        .await
        .unwrap();
    assert_eq!(idle, [last]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let found = queue.take("other", 1, Duration::ZERO).await.unwrap();
    assert_eq!(prompts(found.iter().map(|delivery| &delivery.work)), prompts(&work[199..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_dead_replica_held_is_taken_over() {
    let (queue, _) = queue(shared(), 1_000, SHORT).await;
    let work = work(300);
    queue.publish(&work).await.unwrap();
    assert_eq!(queue.take("dead", 300, Duration::ZERO).await.unwrap().len(), 300);
    // So long that the replica is forgotten, too; not before it holds nothing.
    tokio::time::sleep(5 * SHORT).await;
    let mut found = BTreeSet::new();
    while found.len() < 300 {
        let taken = queue.take("alive", 70, Duration::ZERO).await.unwrap();
        assert!(!taken.is_empty(), "{} of 300 were taken over", found.len());
        queue.acknowledge(&handles(&taken)).await.unwrap();
        found.extend(taken.iter().map(|delivery| delivery.work.prompt));
    }
    assert_eq!((found, queue.depth().await.unwrap()), (prompts(&work), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_are_gone_are_removed_without_their_entries() {
    let (queue, prefix) = queue(shared(), CAPACITY, SHORT).await;
    let stream = format!("{{{prefix}}}:work");
    queue.publish(&work(3)).await.unwrap();
    for consumer in ["gone-1", "gone-2", "gone-3"] {
        let taken = queue.take(consumer, 1, Duration::ZERO).await.unwrap();
        if consumer != "gone-2" {
            queue.acknowledge(&handles(&taken)).await.unwrap();
        }
    }
    let mut commands = commands(shared()).await;
    let mut consumers = async || -> BTreeSet<String> {
        let reply: redis::streams::StreamInfoConsumersReply =
            commands.xinfo_consumers(&stream, "workers").await.unwrap();
        reply.consumers.into_iter().map(|consumer| consumer.name).collect()
    };
    assert_eq!(consumers().await.len(), 3);
    let began = Instant::now();
    let mut last = Vec::new();
    while consumers().await.len() > 1 {
        assert!(began.elapsed() < PATIENCE, "they are never removed: {:?}", consumers().await);
        last.extend(queue.take("alive", 1, SHORT).await.unwrap());
    }
    assert_eq!(consumers().await, BTreeSet::from(["alive".to_owned()]));
    assert!(!last.is_empty(), "what one of them held was taken over");
    assert_eq!(queue.depth().await.unwrap(), 1, "and is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_work_is_removed_and_holds_up_nothing() {
    let (queue, prefix) = queue(shared(), CAPACITY, PATIENCE).await;
    let mut commands = commands(shared()).await;
    let stream = format!("{{{prefix}}}:work");
    for fields in [[("prompt", "no id"), ("traceparent", "")], [("other", "1"), ("thing", "2")]] {
        let _id: String = commands.xadd(&stream, "*", &fields).await.unwrap();
    }
    let work = work(1);
    queue.publish(&work).await.unwrap();
    let taken = queue.take("worker", 3, Duration::ZERO).await.unwrap();
    assert_eq!(prompts(taken.iter().map(|delivery| &delivery.work)), prompts(&work));
    assert_eq!(queue.depth().await.unwrap(), 1, "only the work is left");
    queue.acknowledge(&["garbage".to_owned(), "0-0 garbage".to_owned()]).await.unwrap();
    queue.extend("worker", &["garbage".to_owned()]).await.unwrap();
    let foreign = Delivery { handle: "garbage".to_owned(), work: work[0].clone() };
    queue.postpone(&foreign, Duration::ZERO).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 1, "a foreign handle names nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_given_up_loses_nothing() {
    let (queue, _) = queue(shared(), CAPACITY, SHORT).await;
    for _given_up in 0..5 {
        let taking = queue.take("worker", 1, PATIENCE);
        assert!(tokio::time::timeout(Duration::from_millis(30), taking).await.is_err(), "it waits");
    }
    let work = work(1);
    queue.publish(&work).await.unwrap();
    let taken = queue.take("worker", 1, PATIENCE).await.unwrap();
    assert_eq!(prompts(taken.iter().map(|delivery| &delivery.work)), prompts(&work));
}

#[tokio::test]
async fn what_cannot_be_used_says_why_and_keeps_the_password() {
    let url = shared().url();
    let stranger = url.replace("//:", "//:hush-hush");
    for (url, prefix, fault) in [
        ("", "a", Fault::Invalid),
        ("http://127.0.0.1/hush-hush", "a", Fault::Invalid),
        (&url, "", Fault::Invalid),
        (&url, "a b", Fault::Invalid),
        (&url, "{a}", Fault::Invalid),
        ("redis://:hush-hush@127.0.0.1:1/0", "a", Fault::Unavailable),
        (&stranger, "a", Fault::Unavailable),
    ] {
        let error: RedisError = RedisServer::connect(url, prefix).await.unwrap_err();
        let words = format!("{error} {error:?}");
        assert_eq!(error.fault(), fault, "{words}");
        assert!(!words.contains("hush"), "{words}");
    }
    let server = format!("{:?}", connect(shared(), "a").await);
    assert!(!server.contains("127.0.0.1"), "{server}");
}
