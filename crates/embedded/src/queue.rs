//! The queue in memory: bounded, at least once, with a time of visibility.

use async_trait::async_trait;
use domain::ids::PromptId;
use domain::ports::{Delivery, Queue, QueueError, QueuedPrompt};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The queue of one process. What it holds is gone with the process; the store knows what is unfinished.
#[derive(Debug)]
pub struct MemoryQueue {
    capacity: usize,
    visibility: Duration,
    entries: Mutex<QueueState>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    next: u64,
    waiting: VecDeque<(u64, QueuedPrompt)>,
    delayed: BTreeMap<(Instant, u64), QueuedPrompt>,
    delivered: HashMap<u64, (Instant, QueuedPrompt)>,
    /// The prompts of all entries.
    prompts: HashSet<PromptId>,
}

impl QueueState {
    fn depth(&self) -> usize {
        self.waiting.len() + self.delayed.len() + self.delivered.len()
    }

    /// Brings back what was delayed long enough, or delivered and forgotten. Returns when the next one is due.
    fn wake(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, number), work) = entry.remove_entry();
            self.waiting.push_back((number, work));
        }
        let mut forgotten: Vec<u64> = self
            .delivered
            .iter()
            .filter(|(_, (until, _))| *until <= now)
            .map(|(number, _)| *number)
            .collect();
        forgotten.sort_unstable();
        for number in forgotten {
            if let Some((_, work)) = self.delivered.remove(&number) {
                self.waiting.push_back((number, work));
            }
        }
        let delayed = self.delayed.keys().next().map(|(due, _)| *due);
        let delivered = self.delivered.values().map(|(until, _)| *until).min();
        [delayed, delivered].into_iter().flatten().min()
    }
}

impl MemoryQueue {
    /// At most `capacity` entries; one that is delivered and neither acknowledged nor extended within `visibility` is
    /// delivered again.
    pub fn new(capacity: usize, visibility: Duration) -> Self {
        Self { capacity, visibility, entries: Mutex::default(), arrived: Notify::new() }
    }

    fn entries(&self) -> MutexGuard<'_, QueueState> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(&self, max: usize) -> (Vec<Delivery>, Option<Instant>) {
        let now = Instant::now();
        let mut entries = self.entries();
        let due = entries.wake(now);
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some((number, work)) = entries.waiting.pop_front() else { break };
            entries.delivered.insert(number, (now + self.visibility, work.clone()));
            taken.push(Delivery { handle: number.to_string(), work });
        }
        (taken, due)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, work: &[QueuedPrompt]) -> Result<usize, QueueError> {
        let mut entries = self.entries();
        let mut published = 0;
        for work in work {
            if !entries.prompts.contains(&work.prompt) {
                if entries.depth() >= self.capacity {
                    break;
                }
                let number = entries.next;
                entries.next += 1;
                entries.prompts.insert(work.prompt);
                entries.waiting.push_back((number, work.clone()));
            }
            published += 1;
        }
        drop(entries);
        if published == 0 && !work.is_empty() {
            return Err(QueueError::Full { capacity: self.capacity });
        }
        self.arrived.notify_waiters();
        Ok(published)
    }

    async fn take(&self, _consumer: &str, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let until = Instant::now() + wait;
        loop {
            // Registered before looking, so that what arrives in between is not slept through.
            let arrived = self.arrived.notified();
            let (taken, due) = self.try_take(max);
            if !taken.is_empty() || max == 0 || Instant::now() >= until {
                return Ok(taken);
            }
            let next = due.map_or(until, |due| due.min(until));
            tokio::select! {
                () = arrived => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    async fn acknowledge(&self, handles: &[String]) -> Result<(), QueueError> {
        let mut entries = self.entries();
        for number in handles.iter().filter_map(|handle| handle.parse::<u64>().ok()) {
            if let Some((_, work)) = entries.delivered.remove(&number) {
                entries.prompts.remove(&work.prompt);
            }
        }
        Ok(())
    }

    async fn extend(&self, _consumer: &str, handles: &[String]) -> Result<(), QueueError> {
        let until = Instant::now() + self.visibility;
        let mut entries = self.entries();
        for number in handles.iter().filter_map(|handle| handle.parse::<u64>().ok()) {
            if let Some((visible, _)) = entries.delivered.get_mut(&number) {
                *visible = until;
            }
        }
        Ok(())
    }

    async fn postpone(&self, delivery: &Delivery, delay: Duration) -> Result<(), QueueError> {
        let mut entries = self.entries();
        if let Ok(number) = delivery.handle.parse::<u64>()
            && let Some((_, work)) = entries.delivered.remove(&number)
        {
            entries.delayed.insert((Instant::now() + delay, number), work);
        }
        drop(entries);
        self.arrived.notify_waiters();
        Ok(())
    }

    async fn missing(&self, prompts: &[PromptId]) -> Result<Vec<PromptId>, QueueError> {
        let entries = self.entries();
        Ok(prompts.iter().copied().filter(|prompt| !entries.prompts.contains(prompt)).collect())
    }

    async fn depth(&self) -> Result<usize, QueueError> {
        Ok(self.entries().depth())
    }
}
