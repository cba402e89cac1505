//! Watching: one look at a thing, every so often, is shared by everybody who watches it, so that a crowd of watchers costs the
//! records no more than one.

use domain::Fault;
use domain::event::Event;
use domain::records::{HarvestProgress, Model};
use domain::state::DistillationState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

/// How a thing is looked at.
pub(crate) trait Look: Send + 'static {
    /// What is seen; cloning it is cheap.
    type Seen: Clone + Send + Sync + 'static;
    /// How long to rest between two looks.
    const EVERY: Duration;

    /// Looks once; `None` where nothing is different from the last time. The first look sees something.
    fn look(&mut self) -> impl Future<Output = Result<Option<Self::Seen>, Status>> + Send;
}

/// The newest version of every name, as watchers share it.
pub(crate) type Models = Arc<BTreeMap<String, Model>>;

/// What is seen of a job.
#[derive(Clone)]
pub(crate) struct JobSeen {
    pub(crate) state: DistillationState,
    /// The number of its last event; 0 for none.
    pub(crate) sequence: u64,
    /// Its last events, in order and without holes.
    pub(crate) events: VecDeque<Event>,
    /// The harvest's numbers, and which snapshot of them this is.
    pub(crate) progress: HarvestProgress,
    pub(crate) snapshot: u64,
}

impl JobSeen {
    /// The events after `after`; `None` where some of them are older than what is kept.
    pub(crate) fn events_after(&self, after: u64) -> Option<Vec<Event>> {
        let first = self.events.front()?.sequence;
        (first <= after.saturating_add(1))
            .then(|| self.events.iter().filter(|event| event.sequence > after).cloned().collect())
    }
}

/// What is watched, by its key.
pub(crate) struct Watching<Key, Seen> {
    watched: Arc<Mutex<HashMap<Key, Arc<Watched<Seen>>>>>,
    places: Arc<Semaphore>,
    watchers_max: usize,
}

/// One thing that is watched.
struct Watched<Seen> {
    seen: watch::Sender<Option<Outcome<Seen>>>,
    /// The number of the last look that has begun.
    looks: AtomicU64,
    /// The look that somebody who has just come waits for.
    awaited: AtomicU64,
}

/// What a look came to.
#[derive(Clone)]
struct Outcome<Seen> {
    look: u64,
    seen: Result<Seen, Status>,
}

/// A place of one who watches, until it is dropped.
pub(crate) struct Watcher<Seen> {
    seen: watch::Receiver<Option<Outcome<Seen>>>,
    /// What an earlier look saw may be from before this watcher came.
    first: u64,
    _place: OwnedSemaphorePermit,
}

impl<Key, Seen> Watching<Key, Seen>
where
    Key: Clone + Eq + Hash + Send + 'static,
    Seen: Clone + Send + Sync + 'static,
{
    /// For at most so many watchers of all things together.
    pub(crate) fn new(watchers_max: usize) -> Self {
        let places = Semaphore::new(watchers_max.min(Semaphore::MAX_PERMITS));
        Self { watched: Arc::default(), places: Arc::new(places), watchers_max }
    }

    /// Watches what `key` names; `begin` makes the one who looks, where nobody looks at it yet.
    ///
    /// # Errors
    /// Every place is taken.
    pub(crate) fn watch<L>(&self, key: Key, begin: impl FnOnce() -> L) -> Result<Watcher<Seen>, Status>
    where
        L: Look<Seen = Seen>,
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| self.crowded())?;
        let mut all = lock(&self.watched);
        if let Some(watched) = all.get(&key) {
            return Ok(watched.join(place));
        }
        let (seen, _) = watch::channel(None);
        let watched = Arc::new(Watched { seen, looks: AtomicU64::new(0), awaited: AtomicU64::new(0) });
        all.insert(key.clone(), Arc::clone(&watched));
        let watcher = watched.join(place);
        let followed = Followed { all: Arc::clone(&self.watched), key, watched };
        tokio::spawn(follow(followed, begin()));
        Ok(watcher)
    }

    fn crowded(&self) -> Status {
        let words = format!(
            "{} callers watch already, which is the limit of this process: try again later, or ask now and then instead",
            self.watchers_max
        );
        wire::status(Fault::Overloaded, words)
    }
}

impl<Seen: Clone> Watched<Seen> {
    fn join(&self, place: OwnedSemaphorePermit) -> Watcher<Seen> {
        let seen = self.seen.subscribe();
        let first = self.looks.load(Ordering::SeqCst).saturating_add(1);
        self.awaited.fetch_max(first, Ordering::SeqCst);
        Watcher { seen, first, _place: place }
    }

    fn tell(&self, look: u64, seen: Result<Seen, Status>) {
        self.seen.send_replace(Some(Outcome { look, seen }));
    }
}

impl<Seen: Clone> Watcher<Seen> {
    /// What is seen next; at first, what a look sees that begins after this watcher came.
    pub(crate) async fn next(&mut self) -> Result<Seen, Status> {
        loop {
            let gone = |_| Status::unavailable("what was watched is looked at no more: call again");
            self.seen.changed().await.map_err(gone)?;
            let outcome = self.seen.borrow_and_update().clone();
            if let Some(outcome) = outcome.filter(|outcome| outcome.look >= self.first) {
                return outcome.seen;
            }
        }
    }
}

/// Looks for as long as anybody watches, and until a look fails.
async fn follow<Key, L>(followed: Followed<Key, L::Seen>, mut look: L)
where
    Key: Clone + Eq + Hash,
    L: Look,
{
    let watched = &followed.watched;
    let mut last = None;
    while followed.is_wanted() {
        let number = watched.looks.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let looked = look.look().await;
        let is_awaited = watched.awaited.load(Ordering::SeqCst) >= number;
        match looked {
            Ok(Some(seen)) => {
                last = Some(seen.clone());
                watched.tell(number, Ok(seen));
            }
            Ok(None) => {
                if let Some(seen) = last.clone().filter(|_| is_awaited) {
                    watched.tell(number, Ok(seen));
                }
            }
            Err(status) => {
                // Whoever comes from here on begins anew.
                followed.end();
                return watched.tell(number, Err(status));
            }
        }
        tokio::time::sleep(L::EVERY).await;
    }
}

/// What is looked at, and where it is found until that ends, in whatever way.
struct Followed<Key: Eq + Hash, Seen> {
    all: Arc<Mutex<HashMap<Key, Arc<Watched<Seen>>>>>,
    key: Key,
    watched: Arc<Watched<Seen>>,
}

impl<Key: Eq + Hash, Seen> Followed<Key, Seen> {
    /// Whether anybody watches; where nobody does, it ends before anybody else comes.
    fn is_wanted(&self) -> bool {
        let mut all = lock(&self.all);
        let is_wanted = self.watched.seen.receiver_count() > 0;
        if !is_wanted {
            all.remove(&self.key);
        }
        is_wanted
    }

    fn end(&self) {
        let mut all = lock(&self.all);
        if all.get(&self.key).is_some_and(|watched| Arc::ptr_eq(watched, &self.watched)) {
            all.remove(&self.key);
        }
    }
}

impl<Key: Eq + Hash, Seen> Drop for Followed<Key, Seen> {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tonic::Code;

    /// A number that is watched; [`GONE`] cannot be looked at.
    #[derive(Clone, Default)]
    struct Number {
        value: Arc<AtomicUsize>,
        looks: Arc<AtomicUsize>,
        last: Option<usize>,
    }

    const GONE: usize = 99;

    impl Look for Number {
        type Seen = usize;
        const EVERY: Duration = Duration::from_millis(20);

        async fn look(&mut self) -> Result<Option<usize>, Status> {
            self.looks.fetch_add(1, Ordering::SeqCst);
            let value = self.value.load(Ordering::SeqCst);
            if value == GONE {
                return Err(Status::not_found("gone"));
            }
            Ok((self.last.replace(value) != Some(value)).then_some(value))
        }
    }

    async fn is_empty(watching: &Watching<u8, usize>) -> bool {
        for _look in 0..500 {
            if lock(&watching.watched).is_empty() {
                return true;
            }
            tokio::time::sleep(Number::EVERY).await;
        }
        false
    }

    #[tokio::test]
    async fn a_crowd_looks_as_often_as_one() {
        let (watching, number) = (Watching::<u8, usize>::new(501), Number::default());
        let begin = || number.clone();
        let mut crowd: Vec<_> = (0..500).map(|_| watching.watch(1, begin).unwrap()).collect();
        for value in 0..3 {
            number.value.store(value, Ordering::SeqCst);
            for watcher in &mut crowd {
                assert_eq!(watcher.next().await.unwrap(), value);
            }
        }
        let looks = number.looks.load(Ordering::SeqCst);
        assert!((3..300).contains(&looks), "{looks} looks of 500 watchers at 3 values");
        // Who comes later is told at once.
        let mut late = watching.watch(1, begin).unwrap();
        assert_eq!(late.next().await.unwrap(), 2);
        assert_eq!(watching.watch(2, begin).err().unwrap().code(), Code::ResourceExhausted);
        drop(crowd);
        number.value.store(GONE, Ordering::SeqCst);
        assert_eq!(late.next().await.unwrap_err().code(), Code::NotFound);
        assert!(is_empty(&watching).await, "what has failed is looked at no more");
        number.value.store(1, Ordering::SeqCst);
        let mut again = watching.watch(1, begin).unwrap();
        assert_eq!(again.next().await.unwrap(), 1);
        drop(again);
        assert!(is_empty(&watching).await, "nor what nobody watches");
    }

    /// One that breaks down.
    struct Broken;

    impl Look for Broken {
        type Seen = usize;
        const EVERY: Duration = Duration::from_millis(20);

        async fn look(&mut self) -> Result<Option<usize>, Status> {
            panic!("for a test");
        }
    }

    #[tokio::test]
    async fn watchers_are_told_where_a_look_breaks_down() {
        let watching = Watching::<u8, usize>::new(2);
        let mut watcher = watching.watch(1, || Broken).unwrap();
        assert_eq!(watcher.next().await.unwrap_err().code(), Code::Unavailable);
        assert!(is_empty(&watching).await);
    }
}
