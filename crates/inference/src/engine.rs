//! The engine's door: what is admitted, and the thread that answers it.

use crate::InferenceError;
use crate::cache::Cache;
use crate::meters::{self, Meters, RefusalReason};
use crate::request::{Keeping, Request, RequestGuard};
use crate::settings::Settings;
use crate::work;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// How long an engine that ended at a panic stays down: one that always does must not be all that the machine does.
const RESTART_AFTER: Duration = Duration::from_millis(100);
/// Requests that are on their way to the thread at most, whatever their length.
const REQUESTS_MAX: usize = 4096;

/// What happens where the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The request is refused: the caller tries again later.
    Refuse,
    /// The request waits for room: it belongs to a call that was admitted.
    Wait,
}

/// The queue's other end.
#[derive(Clone)]
pub(crate) struct Engine {
    requests: mpsc::Sender<Request>,
    room: Room,
    draining: Arc<AtomicBool>,
    cache: Arc<Cache>,
    meters: Meters,
}

/// The tokens that requests may hold at once: what they read, and what they may write.
#[derive(Clone)]
struct Room {
    tokens: Arc<Semaphore>,
    tokens_max: usize,
}

impl Room {
    fn new(tokens_max: usize) -> Self {
        let tokens_max = tokens_max.clamp(1, Semaphore::MAX_PERMITS);
        Self { tokens: Arc::new(Semaphore::new(tokens_max)), tokens_max }
    }

    fn held(&self) -> usize {
        self.tokens_max.saturating_sub(self.tokens.available_permits())
    }

    /// What a request of so many tokens takes. A longer one than the whole queue takes it all: it waits alone.
    fn share(&self, tokens: usize) -> u32 {
        u32::try_from(tokens.clamp(1, self.tokens_max)).unwrap_or(u32::MAX)
    }
}

impl Engine {
    pub(crate) fn start(settings: Settings) -> Result<Self, InferenceError> {
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let room = Room::new(settings.queue_tokens_max);
        let batch_tokens_max = settings.batch_tokens_max;
        let cache = Arc::new(Cache::new(settings.cache_bytes_max));
        let meters = Meters::new();
        let (held, counts) = (room.clone(), meters.clone());
        std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || {
                let mut received = received;
                supervise(|| work::run(&mut received, batch_tokens_max, &counts, &|| held.held()));
            })
            .map_err(|error| InferenceError::Internal(format!("the engine cannot be started: {error}")))?;
        Ok(Self { requests, room, draining: Arc::default(), cache, meters })
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Admits a request, now or when there is room, or says why not. Its deadline ends the waiting.
    /// What is known is answered at once, and needs no room.
    pub(crate) async fn submit(
        &self,
        mut request: Request,
        admission: Admission,
    ) -> Result<(), InferenceError> {
        if let Some(question) = self.cache.question(&request.served, &request.prompt) {
            if !self.is_draining()
                && let Some(known) = self.cache.find(&question)
            {
                request.answer(known);
                return Ok(());
            }
            request.kept = Some(Keeping::new(Arc::clone(&self.cache), question));
        }
        match (admission, request.deadline) {
            (Admission::Refuse, _) => self.submit_now(request),
            (Admission::Wait, Some(deadline)) => {
                let waiting = tokio::time::timeout_at(deadline.into(), self.submit_when_room(request));
                waiting.await.map_err(|_| InferenceError::Deadline)?
            }
            (Admission::Wait, None) => self.submit_when_room(request).await,
        }
    }

    fn submit_now(&self, request: Request) -> Result<(), InferenceError> {
        if self.is_draining() {
            meters::refused(RefusalReason::Draining);
            return Err(InferenceError::Draining);
        }
        let share = self.room.share(request.tokens());
        let room = Arc::clone(&self.room.tokens).try_acquire_many_owned(share).ok();
        let (Some(room), Ok(place)) = (room, self.requests.try_reserve()) else {
            meters::refused(RefusalReason::Overloaded);
            let (waiting, limit) = (self.room.held(), self.room.tokens_max);
            return Err(InferenceError::Overloaded { waiting, limit });
        };
        self.admit(request, room, place);
        Ok(())
    }

    async fn submit_when_room(&self, request: Request) -> Result<(), InferenceError> {
        let ended = |_| InferenceError::Internal("the engine ended".to_owned());
        let share = self.room.share(request.tokens());
        let room = Arc::clone(&self.room.tokens).acquire_many_owned(share).await;
        let room = room.map_err(|error| InferenceError::Internal(error.to_string()))?;
        let place = self.requests.reserve().await.map_err(ended)?;
        self.admit(request, room, place);
        Ok(())
    }

    fn admit(&self, mut request: Request, room: OwnedSemaphorePermit, place: mpsc::Permit<'_, Request>) {
        self.meters.held(self.room.held());
        request.guard = Some(RequestGuard::begin(&request, room));
        place.send(request);
    }
}

/// Does `work` to its end, and begins it again where it panics: what waited in it is let go, so that its callers are told, and
/// who asks later is answered.
fn supervise(mut work: impl FnMut()) {
    while std::panic::catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
        tracing::error!("the engine ended at a defect of this program, and begins again without what waited");
        std::thread::sleep(RESTART_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_ends_at_a_panic_begins_again() {
        let (requests, mut received) = mpsc::channel(4);
        let (mut rounds, mut answered) = (0, Vec::new());
        for request in [1, 2, 3] {
            requests.try_send(request).unwrap();
        }
        drop(requests);
        supervise(|| {
            rounds += 1;
            while let Some(request) = received.blocking_recv() {
                assert!(request != 2, "a defect");
                answered.push(request);
            }
        });
        assert_eq!((rounds, answered), (2, vec![1, 3]));
    }
}
