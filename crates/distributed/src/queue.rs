//! The queue as a Redis stream: one group of consumers, entries that are removed when they are done, and a sorted set
//! of those that wait for their time.
//!
//! An index of (prompt, entry) says which prompts have an entry. Whatever changes stream, set and index is one script or
//! one MULTI, so that they agree at any instant: the index has as many members as stream and set have entries. Where it has
//! not, a key was lost, and it is made again from what is there; FLUSHALL takes all three.

use crate::redis_server::RedisServer;
use async_trait::async_trait;
use domain::ids::PromptId;
use domain::ports::{Delivery, Queue, QueueError, QueuedPrompt};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use redis::{RedisResult, Script};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const GROUP: &str = "workers";
/// Entries of one script, command or page.
const BATCH_MAX: usize = 1_000;
/// The longest time that a read blocks; then what has become due is looked for.
const BLOCK_MAX: Duration = Duration::from_secs(1);
/// Idle connections that are kept for blocking reads.
const READERS_MAX: usize = 32;
/// How often within the time of visibility entries that were delivered and not acknowledged are looked for.
const SWEEPS: u32 = 8;
/// Times of visibility without a call after which a consumer is removed.
const SILENCE: u32 = 4;

static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/publish.lua")));
static POSTPONE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/postpone.lua")));
static WAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/wake.lua")));
static FORGET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/forget.lua")));
static MEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/mend.lua")));

/// The queue that the replicas of a cluster share.
pub struct RedisQueue {
    server: RedisServer,
    capacity: usize,
    visibility: Duration,
    stream: String,
    postponed: String,
    index: String,
    readers: Mutex<Vec<MultiplexedConnection>>,
    swept: Mutex<SweepState>,
}

/// When this replica last looked for what is forgotten.
#[derive(Debug, Default)]
struct SweepState {
    entries: Option<Instant>,
    consumers: Option<Instant>,
}

impl std::fmt::Debug for RedisQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RedisQueue").field("stream", &self.stream).finish_non_exhaustive()
    }
}

fn unavailable(error: redis::RedisError) -> QueueError {
    QueueError::Unavailable(error.to_string())
}

/// Our name for an entry: its id in the stream, and its prompt, by which the index knows it.
fn handle(id: &str, prompt: PromptId) -> String {
    format!("{id} {prompt}")
}

/// The parts of a handle of ours; a foreign one names nothing.
fn parts(handle: &str) -> Option<(&str, &str)> {
    handle.split_once(' ')
}

impl RedisQueue {
    /// At most `capacity` entries; one that is delivered and neither acknowledged nor extended within `visibility` is
    /// delivered again. Replicas agree on both.
    pub fn new(server: &RedisServer, capacity: usize, visibility: Duration) -> Self {
        Self {
            capacity,
            visibility,
            stream: server.key("work"),
            postponed: server.key("postponed"),
            index: server.key("index"),
            server: server.clone(),
            readers: Mutex::default(),
            swept: Mutex::default(),
        }
    }

    fn visibility_ms(&self) -> u64 {
        u64::try_from(self.visibility.as_millis()).unwrap_or(u64::MAX)
    }

    /// Brings back what is due, and returns when the next one is.
    async fn wake(&self) -> RedisResult<Option<Duration>> {
        let mut invocation = WAKE.prepare_invoke();
        invocation.key(&self.stream).key(&self.postponed).key(&self.index).arg(BATCH_MAX);
        let next: i64 = invocation.invoke_async(&mut self.server.connection()).await?;
        Ok(u64::try_from(next).ok().map(Duration::from_millis))
    }

    /// Takes over up to `max` entries whose consumers are silent, where it is time to look for them.
    async fn take_over(&self, consumer: &str, max: usize) -> RedisResult<Vec<Delivery>> {
        if !self.is_time(|swept| &mut swept.entries, self.visibility / SWEEPS) {
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        let mut from = "0-0".to_owned();
        loop {
            let page: StreamAutoClaimReply = redis::cmd("XAUTOCLAIM")
                .arg(&self.stream)
                .arg(GROUP)
                .arg(consumer)
                .arg(self.visibility_ms())
                .arg(&from)
                .arg("COUNT")
                .arg(max - taken.len())
                .query_async(&mut self.server.connection())
                .await?;
            taken.extend(self.deliveries(page.claimed).await?);
            // An empty page is not the end: the server looks at a bounded number of entries at a time.
            from = page.next_stream_id;
            if from == "0-0" {
                break;
            }
            if taken.len() >= max {
                self.swept().entries = None;
                break;
            }
        }
        if self.is_time(|swept| &mut swept.consumers, self.visibility) {
            let mut invocation = FORGET.prepare_invoke();
            invocation
                .key(&self.stream)
                .arg(GROUP)
                .arg(self.visibility_ms().saturating_mul(u64::from(SILENCE)));
            let _removed: usize = invocation.invoke_async(&mut self.server.connection()).await?;
        }
        Ok(taken)
    }

    /// Reads up to `max` entries that were not delivered before; waits up to `block` for the first, where that is given.
    async fn read(&self, consumer: &str, max: usize, block: Option<Duration>) -> RedisResult<Vec<Delivery>> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(consumer).arg("COUNT").arg(max);
        if let Some(block) = block {
            // Zero would block without end.
            command.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        command.arg("STREAMS").arg(&self.stream).arg(">");
        let read: Option<StreamReadReply> = if block.is_none() {
            command.query_async(&mut self.server.connection()).await?
        } else {
            let idle = self.readers().pop();
            let mut reader = match idle {
                Some(reader) => reader,
                None => self.server.blocking_connection(BLOCK_MAX).await?,
            };
            let read = command.query_async(&mut reader).await;
            self.put_back(reader, read.as_ref().err());
            read?
        };
        let entries = read.into_iter().flat_map(|read| read.keys).flat_map(|stream| stream.ids).collect();
        self.deliveries(entries).await
    }

    /// Entries as they are handed out. What is no entry of ours is removed.
    async fn deliveries(&self, entries: Vec<StreamId>) -> RedisResult<Vec<Delivery>> {
        let mut deliveries = Vec::with_capacity(entries.len());
        let mut foreign = Vec::new();
        for entry in entries {
            let prompt = entry.get::<String>("prompt").and_then(|prompt| prompt.parse().ok());
            match (prompt, entry.get("traceparent")) {
                (Some(prompt), Some(traceparent)) => deliveries.push(Delivery {
                    handle: handle(&entry.id, prompt),
                    work: QueuedPrompt { prompt, traceparent },
                }),
                _ => foreign.push(entry.id),
            }
        }
        if !foreign.is_empty() {
            tracing::warn!(stream = self.stream, entries = ?foreign, "what is no work was removed from the queue");
            let mut remove = redis::pipe();
            remove.atomic().xack(&self.stream, GROUP, &foreign).ignore();
            remove.xdel(&self.stream, &foreign).ignore();
            remove.exec_async(&mut self.server.connection()).await?;
        }
        Ok(deliveries)
    }

    /// Looks once: what is due or forgotten first, then what was not delivered before, for which it waits up to `left`. The group is
    /// made where there is none, before the first read and after FLUSHALL, and begins with the oldest entry.
    async fn take_available(&self, consumer: &str, max: usize, left: Duration) -> RedisResult<Vec<Delivery>> {
        match self.try_take(consumer, max, left).await {
            Err(error) if matches!(error.code(), Some("NOGROUP" | "UNBLOCKED")) => {
                let made: RedisResult<()> = redis::cmd("XGROUP")
                    .arg("CREATE")
                    .arg(&self.stream)
                    .arg(GROUP)
                    .arg("0")
                    .arg("MKSTREAM")
                    .query_async(&mut self.server.connection())
                    .await;
                match made {
                    // Another replica was faster.
                    Err(error) if error.code() == Some("BUSYGROUP") => {}
                    made => made?,
                }
                self.try_take(consumer, max, Duration::ZERO).await
            }
            looked => looked,
        }
    }

    async fn try_take(&self, consumer: &str, max: usize, left: Duration) -> RedisResult<Vec<Delivery>> {
        let due = self.wake().await?;
        // What was taken over is handed out at once: a failure to read on would keep it back.
        let found = self.take_over(consumer, max).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        // Waiting ends when something may have become due.
        let block = left.min(BLOCK_MAX).min(self.visibility / SWEEPS).min(due.unwrap_or(BLOCK_MAX));
        self.read(consumer, max, (!left.is_zero()).then_some(block)).await
    }

    /// Whether it is time to do again what was done at `last`; then it counts as done now.
    fn is_time(&self, last: impl FnOnce(&mut SweepState) -> &mut Option<Instant>, every: Duration) -> bool {
        let mut swept = self.swept();
        let last = last(&mut swept);
        let due = last.is_none_or(|last| last.elapsed() >= every);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    fn swept(&self) -> MutexGuard<'_, SweepState> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<MultiplexedConnection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for the next read. Where it failed, the idle ones have lost the server, too.
    fn put_back(&self, reader: MultiplexedConnection, failure: Option<&redis::RedisError>) {
        let mut readers = self.readers();
        if failure.is_some_and(redis::RedisError::is_unrecoverable_error) {
            readers.clear();
        } else if readers.len() < READERS_MAX {
            readers.push(reader);
        }
    }

    /// Makes the index again where it does not agree with what it is of: one of the three keys was lost.
    async fn mend(&self) -> RedisResult<()> {
        let mut invocation = MEND.prepare_invoke();
        invocation.key(&self.stream).key(&self.postponed).key(&self.index).arg(BATCH_MAX);
        let (indexed, entries): (usize, usize) =
            invocation.invoke_async(&mut self.server.connection()).await?;
        if indexed != entries {
            tracing::warn!(
                index = self.index,
                indexed,
                entries,
                "Redis lost a key of the work queue: its index is made again; with `maxmemory-policy noeviction` Redis keeps its keys"
            );
        }
        Ok(())
    }

    async fn publish_batch(&self, work: &[QueuedPrompt]) -> RedisResult<Option<usize>> {
        let mut invocation = PUBLISH.prepare_invoke();
        invocation.key(&self.stream).key(&self.postponed).key(&self.index).arg(self.capacity);
        for work in work {
            invocation.arg(work.prompt.to_string()).arg(&work.traceparent);
        }
        let fitted: i64 = invocation.invoke_async(&mut self.server.connection()).await?;
        Ok(usize::try_from(fitted).ok())
    }
}

#[async_trait]
impl Queue for RedisQueue {
    async fn publish(&self, work: &[QueuedPrompt]) -> Result<usize, QueueError> {
        let mut published = 0;
        for batch in work.chunks(BATCH_MAX) {
            match self.publish_batch(batch).await.map_err(unavailable)? {
                None if published == 0 => return Err(QueueError::Full { capacity: self.capacity }),
                None => break,
                Some(fitted) => published += fitted,
            }
        }
        Ok(published)
    }

    async fn take(&self, consumer: &str, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let max = max.min(BATCH_MAX);
        if max == 0 {
            return Ok(Vec::new());
        }
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let found = self.take_available(consumer, max, left).await.map_err(unavailable)?;
            if !found.is_empty() || left.is_zero() {
                return Ok(found);
            }
        }
    }

    async fn acknowledge(&self, handles: &[String]) -> Result<(), QueueError> {
        let (ids, prompts): (Vec<&str>, Vec<&str>) =
            handles.iter().filter_map(|handle| parts(handle)).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let indexed: Vec<String> =
            ids.iter().zip(&prompts).map(|(id, prompt)| format!("{prompt} {id}")).collect();
        let mut done = redis::pipe();
        done.atomic().xack(&self.stream, GROUP, &ids).ignore().xdel(&self.stream, &ids).ignore();
        done.zrem(&self.index, indexed).ignore();
        done.exec_async(&mut self.server.connection()).await.map_err(unavailable)
    }

    async fn extend(&self, consumer: &str, handles: &[String]) -> Result<(), QueueError> {
        let ids: Vec<&str> = handles.iter().filter_map(|handle| parts(handle)).map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        // Bare ids: nothing is delivered, only the idle time restarts. An entry that is done stays done.
        let extended: RedisResult<Vec<String>> = redis::cmd("XCLAIM")
            .arg(&self.stream)
            .arg(GROUP)
            .arg(consumer)
            .arg(0)
            .arg(&ids)
            .arg("JUSTID")
            .query_async(&mut self.server.connection())
            .await;
        match extended {
            // The group was lost with every entry.
            Err(error) if error.code() == Some("NOGROUP") => Ok(()),
            extended => extended.map(drop).map_err(unavailable),
        }
    }

    async fn postpone(&self, delivery: &Delivery, delay: Duration) -> Result<(), QueueError> {
        let Some((id, prompt)) = parts(&delivery.handle) else { return Ok(()) };
        let mut invocation = POSTPONE.prepare_invoke();
        invocation.key(&self.stream).key(&self.postponed).key(&self.index);
        invocation.arg(GROUP).arg(id).arg(prompt).arg(&delivery.work.traceparent);
        invocation.arg(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let _postponed: i64 =
            invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        Ok(())
    }

    async fn missing(&self, prompts: &[PromptId]) -> Result<Vec<PromptId>, QueueError> {
        self.mend().await.map_err(unavailable)?;
        let mut missing = Vec::new();
        for batch in prompts.chunks(BATCH_MAX) {
            let mut ask = redis::pipe();
            for prompt in batch {
                // From the prompt and a space to the prompt and the next character: its entries.
                let (from, to) = (format!("[{prompt} "), format!("({prompt}!"));
                ask.cmd("ZLEXCOUNT").arg(&self.index).arg(from).arg(to);
            }
            let counts: Vec<usize> =
                ask.query_async(&mut self.server.connection()).await.map_err(unavailable)?;
            let absent = batch.iter().zip(counts).filter(|(_, count)| *count == 0);
            missing.extend(absent.map(|(prompt, _)| *prompt));
        }
        Ok(missing)
    }

    async fn depth(&self) -> Result<usize, QueueError> {
        let mut ask = redis::pipe();
        ask.atomic().xlen(&self.stream).zcard(&self.postponed);
        let (stream, postponed): (usize, usize) =
            ask.query_async(&mut self.server.connection()).await.map_err(unavailable)?;
        Ok(stream + postponed)
    }
}
