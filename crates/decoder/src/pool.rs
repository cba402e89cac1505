//! A team of threads that runs one job at a time. They meet at barriers: a waiting thread spins, then gives up its turn,
//! then sleeps, so that the team also gets on where it has fewer processors than threads.
#![allow(unsafe_code, reason = "a job is lent to threads that outlive it; they are done before it ends")]

use crate::{Error, Result};
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Most threads of a team.
pub(crate) const THREADS_MAX: usize = 256;
/// Looks at a value before a thread gives up its turn: some microseconds.
const SPINS: usize = 100;
/// Turns given up before a thread sleeps.
const YIELDS: usize = 400;

/// What a team runs; `'a` is how long it may borrow.
type Job<'a> = dyn Fn(&Worker<'_>) + Sync + 'a;

/// A number that grows; threads wait until it does.
#[derive(Debug, Default)]
struct Event {
    value: AtomicUsize,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

impl Event {
    fn value(&self) -> usize {
        self.value.load(Ordering::SeqCst)
    }

    fn advance(&self) {
        self.value.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// Sequentially consistent: either this sees the sleeper, or the sleeper sees what happened before.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
    }

    /// Waits until `reached`.
    fn wait(&self, reached: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if reached() {
                return;
            }
            std::hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if reached() {
                return;
            }
            std::thread::yield_now();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        while !reached() {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        drop(bed);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the threads of a team share.
#[derive(Default)]
struct Team {
    /// Grows with every job.
    jobs: Event,
    /// Grows when a helper is done with a job.
    done: Event,
    /// Grows when all have reached a barrier.
    barrier: Event,
    arrived: AtomicUsize,
    /// A worker panicked: nobody waits for it any more.
    broken: AtomicBool,
    closing: AtomicBool,
    job: UnsafeCell<Option<*const Job<'static>>>,
}

// SAFETY: `job` is written by the thread that starts a job while no helper runs, and published by `jobs`.
unsafe impl Send for Team {}
// SAFETY: as above.
unsafe impl Sync for Team {}

/// One thread's part in a job.
pub(crate) struct Worker<'a> {
    team: &'a Team,
    /// From 0 to below `count`.
    pub(crate) index: usize,
    /// Threads in the team.
    pub(crate) count: usize,
}

impl Worker<'_> {
    /// Waits until all workers are here. What they wrote before is seen after.
    pub(crate) fn barrier(&self) {
        if self.count == 1 {
            return;
        }
        let team = self.team;
        let round = team.barrier.value();
        if team.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            team.arrived.store(0, Ordering::Relaxed);
            team.barrier.advance();
            return;
        }
        team.barrier.wait(|| team.barrier.value() != round || team.broken.load(Ordering::SeqCst));
        if team.broken.load(Ordering::SeqCst) {
            resume_unwind(Box::new("another worker failed"));
        }
    }

    /// This worker's share of `0..total`, in pieces of `unit`.
    pub(crate) fn share(&self, total: usize, unit: usize) -> std::ops::Range<usize> {
        let pieces = total.div_ceil(unit);
        let edge = |index: usize| (pieces * index / self.count * unit).min(total);
        edge(self.index)..edge(self.index + 1)
    }
}

/// A team of threads: the caller is one of them.
pub(crate) struct Pool {
    team: Arc<Team>,
    helpers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads - 1` helpers.
    ///
    /// # Errors
    /// The count is not in 1..=256, or the system starts no thread.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(Error::Input(format!("{threads} threads: from 1 to {THREADS_MAX} can be had")));
        }
        let mut pool = Self { team: Arc::new(Team::default()), helpers: Vec::new() };
        for index in 1..threads {
            let team = Arc::clone(&pool.team);
            let helper = std::thread::Builder::new()
                .name(format!("decoder-{index}"))
                .spawn(move || help(&team, index, threads))
                .map_err(|error| Error::Worker(error.to_string()))?;
            pool.helpers.push(helper);
        }
        Ok(pool)
    }

    /// Threads, the caller's among them.
    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `job` once on every thread and waits for all.
    ///
    /// # Errors
    /// A worker failed, now or earlier.
    pub(crate) fn run(&mut self, job: &Job<'_>) -> Result<()> {
        let team = &*self.team;
        let broken = || Error::Worker("one of them failed inside a pass".to_owned());
        if team.broken.load(Ordering::SeqCst) {
            return Err(broken());
        }
        let done = team.done.value();
        // SAFETY: only the lifetime changes. All helpers have finished with the job before this function returns.
        let lent = unsafe { std::mem::transmute::<&Job<'_>, *const Job<'static>>(job) };
        // SAFETY: no helper runs a job now, so none reads the cell.
        unsafe { *team.job.get() = Some(lent) };
        team.jobs.advance();
        let worker = Worker { team, index: 0, count: self.helpers.len() + 1 };
        let own = catch_unwind(AssertUnwindSafe(|| job(&worker)));
        if own.is_err() {
            shatter(team);
        }
        let finished = done + self.helpers.len();
        team.done.wait(|| team.done.value() >= finished);
        if team.broken.load(Ordering::SeqCst) { Err(broken()) } else { Ok(()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.team.closing.store(true, Ordering::SeqCst);
        self.team.jobs.advance();
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of its jobs: there is nothing to learn from its end.
            drop(helper.join());
        }
    }
}

/// Sends away whoever waits at the barrier.
fn shatter(team: &Team) {
    team.broken.store(true, Ordering::SeqCst);
    team.barrier.wake();
}

fn help(team: &Team, index: usize, count: usize) {
    let mut seen = 0;
    loop {
        team.jobs.wait(|| team.jobs.value() != seen);
        seen += 1;
        if team.closing.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the job was stored before `jobs` grew, and stays until `done` has grown for this helper.
        let job = unsafe { (*team.job.get()).map(|job| &*job) };
        if let Some(job) = job {
            let worker = Worker { team, index, count };
            if catch_unwind(AssertUnwindSafe(|| job(&worker))).is_err() {
                shatter(team);
            }
        }
        team.done.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_pass_every_barrier_together_on_few_processors() {
        let mut pool = Pool::new(7).unwrap();
        let sum = AtomicUsize::new(0);
        for round in 0..50 {
            pool.run(&|worker| {
                for step in 0..20 {
                    sum.fetch_add(1, Ordering::SeqCst);
                    worker.barrier();
                    assert_eq!(sum.load(Ordering::SeqCst), (round * 20 + step + 1) * 7);
                    worker.barrier();
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn a_failing_worker_fails_the_job_and_hangs_nobody() {
        for failing in 0..3 {
            let mut pool = Pool::new(3).unwrap();
            let result = pool.run(&|worker| {
                if worker.index == failing {
                    resume_unwind(Box::new("on purpose"));
                }
                worker.barrier();
            });
            assert!(matches!(result, Err(Error::Worker(_))));
            assert!(pool.run(&|_| ()).is_err());
        }
    }

    #[test]
    fn shares_cover_everything_once() {
        let team = Team::default();
        for count in 1..9 {
            for (total, unit) in [(0, 1), (1, 1), (32, 4), (33, 4), (7, 16), (100, 3)] {
                let mut next = 0;
                for index in 0..count {
                    let share = Worker { team: &team, index, count }.share(total, unit);
                    assert_eq!(share.start, next);
                    next = share.end;
                }
                assert_eq!(next, total);
            }
        }
    }
}
