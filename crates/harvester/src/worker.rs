//! Workers: take entries, lease their prompts, ask, and write what comes back in batches.
//!
//! Some prompts are leased ahead of the slots, and a slot is freed before its answer is written, so that asking never waits
//! for the database; an entry is acknowledged after its answer is committed, so that nothing is lost in between.

mod together;

use crate::address;
use crate::at_work::Mark;
use crate::calls::{Calls, PromptAccount};
use crate::error::{HarvestError, guarded};
use crate::job::{self, PreparedJob, TOKENS_MAX};
use crate::meters::{self, NoAnswer};
use crate::obstacles;
use crate::shared::{Shared, WORKERS_MAX};
use crate::writing::Answers;
use domain::budget::CallEnd;
use domain::completion;
use domain::completion::{FinishReason, Parsed};
use domain::ids::{CallId, DistillationId, PromptId};
use domain::ports::AttemptFailure;
use domain::ports::Delivery;
use domain::records::{Completion, Harvested, LeasedPrompt};
use domain::state::{PromptState, Purpose, Reason};
use domain::telemetry::span;
use domain::{Example, Fault, Traceparent};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use teacher::{CallAccount, Question, Reply, Teacher, TeacherError};
use together::{Divided, Groups, Member, Tried};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// Answers of one write.
const WRITE_BATCH: usize = 200;
/// How long a write waits for more answers.
const WRITE_DELAY: Duration = Duration::from_millis(20);
/// The longest wait at an empty queue.
const TAKE_WAIT: Duration = Duration::from_millis(100);
/// How long a call that has room for more rows waits for them.
const FILL_WAIT: Duration = Duration::from_millis(20);
/// How often it waits for them.
const FILLS_MAX: usize = 4;
/// When a prompt whose key is being asked elsewhere is looked at again.
const BUSY_DELAY: Duration = Duration::from_millis(200);
/// When a prompt is tried again after its teacher failed.
const FAILURE_DELAY: Duration = Duration::from_millis(500);
/// The longest of these delays while a teacher is not asked.
const OUTAGE_DELAY_MAX: Duration = Duration::from_secs(5);

/// A prompt that was asked, on its way to the store.
struct AnsweredPrompt {
    handle: String,
    harvested: Harvested,
    /// The span in which it was asked; `None` outside of a trace.
    context: Option<Traceparent>,
}

/// The leases of this process, for their heartbeats.
type Leases = Arc<Mutex<HashMap<PromptId, HeldLease>>>;

/// A lease of this process.
struct HeldLease {
    job: DistillationId,
    attempt: u32,
    handle: String,
}

struct Worker {
    shared: Arc<Shared>,
    /// Questions that may be asked at once.
    slots: Arc<Semaphore>,
    shutdown: CancellationToken,
    leases: Leases,
    asked: mpsc::Sender<AnsweredPrompt>,
    calls: Calls,
    outages: Mutex<HashMap<String, Outage>>,
    together: Tried,
}

pub(crate) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let wanted: usize = shared.teachers.values().map(|teacher| teacher.profile().concurrency_max).sum();
    let slots = wanted.clamp(1, shared.settings.workers.clamp(1, WORKERS_MAX));
    // As many wait as are asked: replicas take turns at a job's account, and none may run out of prompts while it waits.
    let ahead = Arc::new(Semaphore::new(slots));
    let least = u32::try_from(slots.div_ceil(2)).unwrap_or(1);
    let (asked, to_write) = mpsc::channel(WRITE_BATCH * 2);
    let leases = Leases::default();
    let worker = Arc::new(Worker {
        shared: Arc::clone(&shared),
        slots: Arc::new(Semaphore::new(slots)),
        shutdown: shutdown.clone(),
        leases: Arc::clone(&leases),
        asked,
        calls: Calls::start(&shared.stores),
        outages: Mutex::default(),
        together: Tried::default(),
    });
    let writer = tokio::spawn(write(Arc::clone(&shared), Arc::clone(&leases), to_write));
    let stopped = CancellationToken::new();
    let asked_for = Arc::clone(&leases);
    let asking_for = move || {
        let jobs: HashSet<DistillationId> = lock(&asked_for).values().map(|held| held.job).collect();
        jobs.into_iter().collect()
    };
    let looks = tokio::spawn(obstacles::run(Arc::clone(&shared), asking_for, stopped.clone()));
    let heart = tokio::spawn(beat(Arc::clone(&shared), leases, stopped.clone()));
    let asking = TaskTracker::new();
    while !shutdown.is_cancelled() {
        if let Err(error) = worker.round(&ahead, least, &asking).await {
            tracing::warn!(%error, "no work can be taken");
            tokio::time::sleep(FAILURE_DELAY).await;
        }
    }
    // Nobody waits for a turn any more. What is being asked was paid for: it is waited for and written.
    for teacher in shared.teachers.values() {
        teacher.close();
    }
    asking.close();
    asking.wait().await;
    drop(worker);
    let _ = writer.await;
    stopped.cancel();
    let _ = heart.await;
    let _ = looks.await;
}

impl Worker {
    /// Takes and leases as much as may wait for a slot; each prompt is asked when it has one.
    async fn round(
        self: &Arc<Self>,
        ahead: &Arc<Semaphore>,
        least: u32,
        asking: &TaskTracker,
    ) -> Result<(), HarvestError> {
        let Some(mut permits) = free_permits(ahead, least, &self.shutdown).await else { return Ok(()) };
        let mut groups = Groups::default();
        self.take_into(&mut groups, permits.len(), TAKE_WAIT).await?;
        // Calls that ask about several rows are filled as far as their rows come next.
        for _fill in 0..FILLS_MAX {
            let room = groups.room();
            if room == 0 {
                break;
            }
            if let Err(error) = self.take_into(&mut groups, room, FILL_WAIT).await {
                tracing::warn!(%error, "calls are made with the rows that are there");
                break;
            }
            if groups.room() >= room {
                break;
            }
        }
        for members in groups.into_calls() {
            // What filled a call may be more than was free; it waits for a slot like the others.
            let (worker, permit) = (Arc::clone(self), permits.pop());
            asking.spawn(async move { worker.harvest(members, permit).await });
        }
        Ok(())
    }

    /// Takes so many entries at most, and sorts their prompts into calls.
    async fn take_into(&self, groups: &mut Groups, count: usize, wait: Duration) -> Result<(), HarvestError> {
        for member in self.take(count, wait).await? {
            let rows = self.rows_together(member.leased.prompt.distillation).await;
            groups.add(member, rows);
        }
        Ok(())
    }

    /// Takes so many entries at most, leases their prompts, and settles what needs no asking.
    async fn take(&self, count: usize, wait: Duration) -> Result<Vec<Member>, HarvestError> {
        let name = &self.shared.settings.name;
        let taken = tokio::select! {
            taken = self.shared.queue.take(name, count, wait) => taken?,
            () = self.shutdown.cancelled() => return Ok(Vec::new()),
        };
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let prompts: Vec<PromptId> = taken.iter().map(|delivery| delivery.work.prompt).collect();
        let outcome =
            self.shared.stores.prompts.lease_prompts(&prompts, name, self.shared.settings.lease).await?;
        let mut deliveries: HashMap<PromptId, Delivery> =
            taken.into_iter().map(|delivery| (delivery.work.prompt, delivery)).collect();
        let mut members = Vec::with_capacity(outcome.leased.len());
        for leased in outcome.leased {
            let Some(delivery) = deliveries.remove(&leased.prompt.id) else { continue };
            let at_work = self.mark(leased.prompt.distillation).await;
            let held = HeldLease {
                job: leased.prompt.distillation,
                attempt: leased.prompt.attempt,
                handle: delivery.handle.clone(),
            };
            lock(&self.leases).insert(leased.prompt.id, held);
            let span = prompt_span(&leased, &delivery);
            members.push(Member { leased, delivery, span, at_work });
        }
        let done: Vec<String> = outcome
            .settled
            .iter()
            .chain(&outcome.out_of_budget)
            .filter_map(|prompt| deliveries.remove(prompt))
            .map(|delivery| delivery.handle)
            .collect();
        let settled = self.settle(&done, !outcome.out_of_budget.is_empty(), &outcome.busy, &mut deliveries);
        // What is leased is asked all the same: its leases are held here.
        if let Err(error) = settled.await {
            tracing::warn!(%error, "entries cannot be acknowledged: they will come again and be settled");
        }
        Ok(members)
    }

    /// Marks a job that is asked about. What is leased is asked all the same where the store does not take the mark.
    async fn mark(&self, job: DistillationId) -> Mark {
        self.shared.at_work.at(job).await.unwrap_or_else(|error| {
            tracing::warn!(%error, distillation = %job, "a job is worked at without a mark");
            Mark::default()
        })
    }

    /// Acknowledges what is done, and postpones what is being asked elsewhere.
    async fn settle(
        &self,
        done: &[String],
        is_skipped: bool,
        busy: &[PromptId],
        deliveries: &mut HashMap<PromptId, Delivery>,
    ) -> Result<(), HarvestError> {
        self.shared.queue.acknowledge(done).await?;
        if is_skipped {
            self.shared.changed.notify_waiters();
        }
        for prompt in busy {
            if let Some(delivery) = deliveries.remove(prompt) {
                self.shared.queue.postpone(&delivery, BUSY_DELAY).await?;
            }
        }
        Ok(())
    }

    /// Rows that one call of a job asks about. A job that cannot be opened is asked row by row, and says so there.
    async fn rows_together(&self, job: DistillationId) -> usize {
        match self.shared.jobs.get(job).await {
            Ok(prepared) => match prepared.rows_per_call() {
                several @ 2.. if !self.together.fails(job) => several,
                _ => 1,
            },
            Err(_) => 1,
        }
    }

    /// Asks prompts by one call, those that it does not answer alone, and hands the answers to the writer, or failures to the
    /// store.
    async fn harvest(&self, members: Vec<Member>, ahead: Option<OwnedSemaphorePermit>) {
        let slot = tokio::select! {
            slot = self.slots.acquire() => slot.ok(),
            () = self.shutdown.cancelled() => None,
        };
        drop(ahead);
        let alone = match (&slot, members.len()) {
            (Some(_), 2..) => {
                let (mut known, asked) = self.told_since(members).await;
                known.extend(self.harvest_together(asked).await);
                known
            }
            (Some(_) | None, _) => members,
        };
        let mut slot = slot;
        let count = alone.len();
        for (member, place) in alone.into_iter().zip(1..) {
            let span = member.span.clone();
            let answered = match &slot {
                Some(_) => guarded(self.ask(&member.leased)).instrument(span.clone()).await,
                None => Err(HarvestError::Unasked),
            };
            // A slot is free again before its last answer is written.
            if place == count {
                slot = None;
            }
            self.finish(member, answered).instrument(span).await;
        }
    }

    /// Of prompts that one call would ask: those that are answered already, now that their server tells who answers; and the
    /// others.
    async fn told_since(&self, members: Vec<Member>) -> (Vec<Member>, Vec<Member>) {
        let (mut known, mut asked) = (Vec::new(), Vec::new());
        for mut member in members {
            let found = guarded(async {
                let job = self.shared.jobs.get(member.leased.prompt.distillation).await?;
                let question = job.question_apart(&member.leased).await?;
                address::told_since(&self.shared, &job, &member.leased.prompt, &question).await
            });
            // A question that cannot be made, or a store that is away, is met again where it is asked.
            member.leased.cached = found.await.unwrap_or_default();
            if member.leased.cached.is_some() { known.push(member) } else { asked.push(member) }
        }
        (known, asked)
    }

    /// Asks prompts by one call. Returns those that are to be asked alone.
    async fn harvest_together(&self, members: Vec<Member>) -> Vec<Member> {
        let Some(span) = members.first().map(|member| member.span.clone()) else { return members };
        let (job, reply, account) = match guarded(self.ask_together(&members)).instrument(span).await {
            Ok(asked) => asked,
            // The budget may have room for fewer rows.
            Err(HarvestError::Teacher(TeacherError::BudgetExhausted)) => return members,
            // Fewer rows may be taken, or answered as they should.
            Err(HarvestError::Teacher(
                TeacherError::Malformed(_)
                | TeacherError::Invalid(_)
                | TeacherError::WrongRequest { parameter: None, .. },
            )) => {
                self.note_together(&members, 0);
                return members;
            }
            Err(error) => {
                for Member { leased, delivery, span, at_work: _at_work } in members {
                    self.give_back(&leased, &delivery, &error).instrument(span).await;
                }
                return Vec::new();
            }
        };
        let call = reply.call;
        let found = together::answers(&reply, members.len());
        self.note_together(&members, found.iter().flatten().count());
        let Divided { answered, unanswered, end } = together::divide(&job, members, found, reply);
        if let Some(end) = end {
            account.end(call, end).await;
        }
        for (member, harvested) in answered {
            let span = member.span.clone();
            self.finish(member, Ok(harvested)).instrument(span).await;
        }
        unanswered
    }

    /// Notes how many of the rows that a call asked about it answered.
    fn note_together(&self, members: &[Member], answered: usize) {
        let Some(job) = members.first().map(|member| member.leased.prompt.distillation) else { return };
        if self.together.note(job, members.len(), answered) {
            tracing::warn!(
                distillation = %job,
                "the teacher does not answer several rows at once: this process asks about each of them alone"
            );
        }
    }

    /// Calls the teacher once for all of these; the call is reserved on the first of them.
    async fn ask_together(
        &self,
        members: &[Member],
    ) -> Result<(Arc<PreparedJob>, Reply, Arc<PromptAccount>), HarvestError> {
        let Some(first) = members.first().map(|member| &member.leased.prompt) else {
            return Err(HarvestError::Unasked);
        };
        let job = self.shared.jobs.get(first.distillation).await?;
        let Some(teacher) = job.teacher(first.profile) else {
            return Err(HarvestError::Stuck("this job has no teacher to ask".to_owned()));
        };
        let account = self.calls.account(first.id, first.attempt);
        let examples: Vec<Example> = members.iter().map(|member| member.leased.example.clone()).collect();
        let (sample, hinted, greedy) = (first.sample, first.hinted, first.purpose == Purpose::Evaluate);
        let render = move |job: &PreparedJob| {
            job.question_together(&examples.iter().collect::<Vec<_>>(), sample, hinted, greedy)
        };
        let question = job.apart(render).await?;
        let reply = self.ask_teacher(teacher, question, &account).await?;
        Ok((job, reply, account))
    }

    /// Hands an answer to the writer, or its failure to the store.
    async fn finish(&self, member: Member, answered: Result<Harvested, HarvestError>) {
        let Member { leased, delivery, span, at_work: _at_work } = member;
        match answered {
            Ok(harvested) => {
                span.record("distillery.cached", harvested.cached);
                span.record("distillery.verdict", harvested.verdict.as_str());
                let asked =
                    AnsweredPrompt { handle: delivery.handle, harvested, context: wire::trace::of(&span) };
                if self.asked.send(asked).await.is_err() {
                    tracing::error!(prompt = %leased.prompt.id, "the writer is gone");
                }
            }
            Err(error) => self.give_back(&leased, &delivery, &error).await,
        }
    }

    /// Ends a lease that brought no answer.
    async fn give_back(&self, leased: &LeasedPrompt, delivery: &Delivery, error: &HarvestError) {
        Span::current().record("otel.status_code", "ERROR");
        if let Err(second) = self.fail(leased, delivery, error).await {
            tracing::warn!(%second, prompt = %leased.prompt.id, "a failure cannot be written");
        }
        lock(&self.leases).remove(&leased.prompt.id);
    }

    async fn ask(&self, leased: &LeasedPrompt) -> Result<Harvested, HarvestError> {
        let job = self.shared.jobs.get(leased.prompt.distillation).await?;
        let harvested = |completion, calls| job.harvested(&leased.prompt, &leased.example, completion, calls);
        if let Some(completion) = &leased.cached {
            return Ok(Harvested { cached: true, ..harvested(completion.clone(), Vec::new()) });
        }
        let question = job.question_apart(leased).await?;
        if let Some(completion) = address::told_since(&self.shared, &job, &leased.prompt, &question).await? {
            return Ok(Harvested { cached: true, ..harvested(completion, Vec::new()) });
        }
        let (completion, calls) = self.call(&job, leased, question).await?;
        Ok(harvested(completion, calls))
    }

    /// Calls the teacher; an answer that ran out of room is asked once more with twice the room. Returns the answer, and the
    /// calls that end with it.
    async fn call(
        &self,
        job: &PreparedJob,
        leased: &LeasedPrompt,
        mut question: Question,
    ) -> Result<PaidAnswer, HarvestError> {
        let Some(teacher) = job.teacher(leased.prompt.profile) else {
            return Err(HarvestError::Stuck("this job has no teacher to ask".to_owned()));
        };
        let prompt = &leased.prompt;
        let account = self.calls.account(prompt.id, prompt.attempt);
        let reply = self.ask_teacher(teacher, question.clone(), &account).await?;
        let room = question.sampling.tokens_max.saturating_mul(2).min(TOKENS_MAX);
        if !truncated(job, leased, &reply) || room <= question.sampling.tokens_max {
            let ended = vec![(reply.call, CallEnd::Charged(reply.usage))];
            return Ok((job::completion(prompt.key, reply), ended));
        }
        account.end(reply.call, CallEnd::Charged(reply.usage)).await;
        question.sampling.tokens_max = room;
        match self.ask_teacher(teacher, question, &account).await {
            Ok(again) => {
                let ended = vec![(again.call, CallEnd::Charged(again.usage))];
                let whole = Reply {
                    usage: reply.usage.plus(again.usage),
                    seconds: reply.seconds + again.seconds,
                    ..again
                };
                Ok((job::completion(prompt.key, whole), ended))
            }
            // What was paid for is kept.
            Err(HarvestError::Teacher(TeacherError::BudgetExhausted)) => {
                Ok((job::completion(prompt.key, reply), Vec::new()))
            }
            Err(error) => Err(error),
        }
    }

    async fn ask_teacher(
        &self,
        teacher: &Teacher,
        question: Question,
        account: &Arc<PromptAccount>,
    ) -> Result<Reply, HarvestError> {
        let reply = teacher.ask(question, Arc::clone(account) as Arc<dyn CallAccount>).await?;
        lock(&self.outages).remove(&teacher.profile().name);
        Ok(reply)
    }

    /// Ends the lease: the prompt is delayed, counted against, or its job pauses.
    async fn fail(
        &self,
        leased: &LeasedPrompt,
        delivery: &Delivery,
        error: &HarvestError,
    ) -> Result<(), HarvestError> {
        let job = leased.prompt.distillation;
        let what = match error {
            HarvestError::Teacher(TeacherError::BudgetExhausted | TeacherError::LeaseLost) => {
                NoAnswer::Delayed
            }
            HarvestError::Teacher(TeacherError::Unavailable { failure, is_held, .. }) => {
                match self.is_long_outage(&failure.profile, job, !is_held).await? {
                    true => NoAnswer::Paused,
                    false => NoAnswer::Delayed,
                }
            }
            HarvestError::Teacher(
                TeacherError::Malformed(_) | TeacherError::WrongRequest { parameter: None, .. },
            ) => NoAnswer::Counted,
            // The teacher, the records or the queue are away for a moment: nothing that an operator has to repair.
            _ if matches!(error.fault(), Fault::Unavailable | Fault::Overloaded) => NoAnswer::Delayed,
            _ => NoAnswer::Paused,
        };
        let delay = match error {
            HarvestError::Teacher(TeacherError::Wait { wait, .. }) => *wait,
            // Nothing is sent before that; the prompt comes back earlier, so that a long outage is noticed.
            HarvestError::Teacher(TeacherError::Unavailable { wait: Some(wait), .. }) => {
                (*wait).clamp(FAILURE_DELAY, OUTAGE_DELAY_MAX)
            }
            HarvestError::Teacher(TeacherError::BudgetLater) => BUSY_DELAY,
            HarvestError::Unasked | HarvestError::Teacher(TeacherError::Closed) => Duration::ZERO,
            _ => FAILURE_DELAY,
        };
        // A request that is wrong stays wrong: it is not paid for again.
        let is_wrong = matches!(error, HarvestError::Teacher(TeacherError::WrongRequest { .. }));
        let failures_max = if is_wrong { 1 } else { self.shared.settings.failures_max };
        let failure = match what {
            _ if matches!(error, HarvestError::Teacher(TeacherError::BudgetExhausted)) => {
                AttemptFailure::OutOfBudget
            }
            NoAnswer::Counted => AttemptFailure::Teacher { error: error.to_string(), failures_max },
            NoAnswer::Delayed | NoAnswer::Paused => AttemptFailure::Delayed,
        };
        // A prompt that is handed back at a shutdown was not attempted.
        if !matches!(error, HarvestError::Unasked | HarvestError::Teacher(TeacherError::Closed)) {
            meters::unanswered(what);
        }
        if what == NoAnswer::Paused {
            self.shared.pause(job, &error.to_string()).await?;
        }
        let prompt = &leased.prompt;
        let state = self.shared.stores.prompts.record_failure(prompt.id, prompt.attempt, failure).await?;
        if state == PromptState::Pending {
            self.shared.queue.postpone(delivery, delay).await?;
        } else {
            self.shared.queue.acknowledge(std::slice::from_ref(&delivery.handle)).await?;
            self.shared.changed.notify_waiters();
        }
        Ok(())
    }

    /// Whether a teacher has been away for long, while the job was asking it: after a resume the patience begins anew, also in
    /// the replicas that did not pause the job, and remember the outage before that; and no job is paused again before its
    /// teacher, which is left alone for a while after failures, was called once more.
    async fn is_long_outage(
        &self,
        profile: &str,
        job: DistillationId,
        was_called: bool,
    ) -> Result<bool, HarvestError> {
        let patience = self.shared.settings.outage_patience;
        let outage = {
            let mut outages = lock(&self.outages);
            let outage = outages.entry(profile.to_owned()).or_insert_with(Outage::new);
            if was_called {
                outage.called = Some(Instant::now());
            }
            *outage
        };
        if outage.since.elapsed() < patience {
            return Ok(false);
        }
        let asks_for = self.shared.stores.jobs.distillation(job).await?.updated_at.elapsed();
        if asks_for < patience || outage.called.is_none_or(|called| called.elapsed() > asks_for) {
            return Ok(false);
        }
        lock(&self.outages).remove(profile);
        Ok(true)
    }
}

/// A teacher that is away.
#[derive(Clone, Copy)]
struct Outage {
    since: Instant,
    /// When this process called it last.
    called: Option<Instant>,
}

impl Outage {
    fn new() -> Self {
        Self { since: Instant::now(), called: None }
    }
}

/// The span of one prompt, in the trace that its entry names.
fn prompt_span(leased: &LeasedPrompt, delivery: &Delivery) -> Span {
    let prompt = &leased.prompt;
    let span = tracing::info_span!(
        span::HARVEST,
        distillery.job = %prompt.distillation,
        distillery.prompt = %prompt.id,
        distillery.attempt = prompt.attempt,
        distillery.cached = tracing::field::Empty,
        distillery.verdict = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    wire::trace::adopt(&span, &delivery.work.traceparent);
    span
}

/// An answer, and the calls that end when it is written.
type PaidAnswer = (Completion, Vec<(CallId, CallEnd)>);

fn truncated(job: &PreparedJob, leased: &LeasedPrompt, reply: &Reply) -> bool {
    reply.finish_reason == FinishReason::Length
        && matches!(
            completion::parse(&job.spec.task, &leased.example, &reply.text, reply.finish_reason),
            Parsed { reason: Some(Reason::Truncated), .. }
        )
}

/// Permits for one batch of leases: `least` as soon as that many are free, and every other one that is free then; `None` at
/// shutdown. Leases in ones and twos would keep the records busier than the answers do.
async fn free_permits(
    ahead: &Arc<Semaphore>,
    least: u32,
    shutdown: &CancellationToken,
) -> Option<Vec<OwnedSemaphorePermit>> {
    let mut first = tokio::select! {
        permits = Arc::clone(ahead).acquire_many_owned(least) => permits.ok()?,
        () = shutdown.cancelled() => return None,
    };
    let mut permits: Vec<OwnedSemaphorePermit> = std::iter::from_fn(|| first.split(1)).collect();
    while let Ok(permit) = Arc::clone(ahead).try_acquire_owned() {
        permits.push(permit);
    }
    Some(permits)
}

/// Writes answers in batches, acknowledges them, and ends their leases.
async fn write(shared: Arc<Shared>, leases: Leases, mut asked: mpsc::Receiver<AnsweredPrompt>) {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    loop {
        let received = asked.recv_many(&mut batch, WRITE_BATCH).await;
        if received == 0 {
            return;
        }
        let until = tokio::time::Instant::now() + WRITE_DELAY;
        while batch.len() < WRITE_BATCH {
            match tokio::time::timeout_at(until, asked.recv()).await {
                Ok(Some(another)) => batch.push(another),
                Ok(None) | Err(_) => break,
            }
        }
        let span = write_span(&batch);
        store(&shared, &leases, std::mem::take(&mut batch)).instrument(span).await;
    }
}

/// The span of one write: in the trace of its first answer, with a link to every other trace.
fn write_span(batch: &[AnsweredPrompt]) -> Span {
    let span = tracing::info_span!(span::WRITE, distillery.rows = batch.len());
    let mut traces = HashSet::new();
    for context in batch.iter().filter_map(|asked| asked.context) {
        if traces.is_empty() {
            wire::trace::adopt(&span, &context.to_string());
        } else if !traces.contains(&context.trace) {
            wire::trace::link(&span, &context.to_string());
        }
        traces.insert(context.trace);
    }
    span
}

/// An answer that is paid for is not given up: the write is tried until the store takes it.
async fn store(shared: &Shared, leases: &Leases, batch: Vec<AnsweredPrompt>) {
    let handles: Vec<String> = batch.iter().map(|asked| asked.handle.clone()).collect();
    let harvested: Vec<Harvested> = batch.into_iter().map(|asked| asked.harvested).collect();
    let prompts: Vec<PromptId> = harvested.iter().map(|harvested| harvested.prompt).collect();
    let mut answers = Answers::new(harvested);
    let mut wait = FAILURE_DELAY;
    while let Err(error) = answers.write(&shared.stores).await {
        tracing::warn!(%error, "answers cannot be written yet");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
    let jobs: HashSet<DistillationId> = {
        let leases = lock(leases);
        prompts.iter().filter_map(|prompt| leases.get(prompt)).map(|held| held.job).collect()
    };
    // At once: this process may be lost at another job before its driver looks again.
    for job in jobs.into_iter().filter(|job| shared.trials.is_tried(*job)) {
        if let Err(error) = shared.acquit(job).await {
            tracing::warn!(%error, distillation = %job, "that a job came further is not noted: its driver will see it");
        }
    }
    if let Err(error) = shared.queue.acknowledge(&handles).await {
        tracing::warn!(%error, "entries cannot be acknowledged: they will come again and be settled");
    }
    let mut leases = lock(leases);
    for prompt in &prompts {
        leases.remove(prompt);
    }
    drop(leases);
    shared.changed.notify_waiters();
}

/// Prolongs the leases of what is being asked.
async fn beat(shared: Arc<Shared>, leases: Leases, stopped: CancellationToken) {
    let every = shared.settings.lease / 3;
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let held: Vec<(PromptId, u32, String)> =
            lock(&leases).iter().map(|(prompt, held)| (*prompt, held.attempt, held.handle.clone())).collect();
        if held.is_empty() {
            continue;
        }
        let fenced: Vec<(PromptId, u32)> =
            held.iter().map(|(prompt, attempt, _)| (*prompt, *attempt)).collect();
        let handles: Vec<String> = held.into_iter().map(|(_, _, handle)| handle).collect();
        if let Err(error) = shared.stores.prompts.heartbeat_prompts(&fenced, shared.settings.lease).await {
            tracing::warn!(%error, "leases cannot be prolonged");
        }
        if let Err(error) = shared.queue.extend(&shared.settings.name, &handles).await {
            tracing::warn!(%error, "entries cannot be kept");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
