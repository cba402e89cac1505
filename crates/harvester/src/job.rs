//! What it takes to ask a job's prompts: its specification, its compiled template, its teacher.

use crate::apart::apart;
use crate::at_work::AtWork;
use crate::error::HarvestError;
use domain::budget::{CallBound, CallEnd};
use domain::completion;
use domain::ids::{CallId, CompletionKey, DatasetId, DistillationId};
use domain::judge;
use domain::records::{Completion, Distillation, Harvested, LeasedPrompt, Prompt};
use domain::spec::{Spec, TeacherSource, TeacherSpec};
use domain::state::Purpose;
use domain::{Example, JobStore};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use teacher::{BatchTeacher, Profile, Question, Renderer, Reply, Sampling, Teacher};
use tokio::sync::Semaphore;

/// Most tokens that a call asks for where it asks for more than its task says: for several rows, or once more after a
/// truncated answer.
pub(crate) const TOKENS_MAX: u32 = 8192;
/// Jobs kept at once; when it is full, the cache is emptied.
const JOBS_MAX: usize = 256;
/// Threads that one job may keep busy.
const THREADS_MAX: usize = 2;

/// A job, ready to be asked.
pub(crate) struct PreparedJob {
    pub(crate) id: DistillationId,
    pub(crate) dataset: DatasetId,
    pub(crate) spec: Spec,
    /// The trace context of its submission; empty for none.
    pub(crate) traceparent: String,
    renderer: Renderer,
    /// Threads that may be busy with it at once, so that no job of slow templates takes them all.
    threads: Semaphore,
    /// The teachers to ask, the cheapest first; none for imported answers.
    pub(crate) teachers: Vec<Teacher>,
}

/// The operator's teachers by profile name.
pub(crate) type Teachers = BTreeMap<String, Teacher>;

/// Jobs by id: a specification never changes, so an entry never goes stale.
pub(crate) struct PreparedJobs {
    store: Arc<dyn JobStore>,
    teachers: Arc<Teachers>,
    at_work: Arc<AtWork>,
    known: Mutex<HashMap<DistillationId, Arc<PreparedJob>>>,
}

impl PreparedJobs {
    pub(crate) fn new(store: Arc<dyn JobStore>, teachers: Arc<Teachers>, at_work: Arc<AtWork>) -> Self {
        Self { store, teachers, at_work, known: Mutex::default() }
    }

    /// The job with this id, from the cache or from the store.
    pub(crate) async fn get(&self, id: DistillationId) -> Result<Arc<PreparedJob>, HarvestError> {
        if let Some(job) = self.known().get(&id) {
            return Ok(Arc::clone(job));
        }
        let record = self.store.distillation(id).await?;
        // Its template is compiled, and may be of a version that checked less.
        let _at_work = self.at_work.at(id).await?;
        let teachers = Arc::clone(&self.teachers);
        let job = Arc::new(apart(move || PreparedJob::open(&teachers, &record)).await?);
        let mut known = self.known();
        if known.len() >= JOBS_MAX {
            known.clear();
        }
        known.insert(id, Arc::clone(&job));
        Ok(job)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DistillationId, Arc<PreparedJob>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PreparedJob {
    pub(crate) fn open(teachers: &Teachers, job: &Distillation) -> Result<Self, HarvestError> {
        let renderer = Renderer::new(&job.spec.task)?;
        let names = job.spec.teacher.as_ref().map(TeacherSpec::profiles).unwrap_or_default();
        let asked = names.into_iter().map(|name| {
            teachers.get(name).cloned().ok_or_else(|| {
                HarvestError::Stuck(format!(
                    "the teacher profile `{name}` is no longer configured here: add it, then resume"
                ))
            })
        });
        let teachers = asked.collect::<Result<Vec<Teacher>, HarvestError>>()?;
        Ok(Self {
            id: job.id,
            dataset: job.dataset,
            spec: job.spec.clone(),
            traceparent: job.traceparent.clone(),
            renderer,
            threads: Semaphore::new(THREADS_MAX),
            teachers,
        })
    }

    /// Does work that takes long and waits for nothing away from the runtime's threads; of one job only a little at once.
    pub(crate) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        // Never closed.
        let _thread = self.threads.acquire().await;
        let job = Arc::clone(self);
        apart(move || work(&job)).await
    }

    /// Whether its answers came with the data.
    pub(crate) fn is_imported(&self) -> bool {
        self.spec.teacher.as_ref().is_some_and(|teacher| teacher.source == TeacherSource::Imported)
    }

    /// Whether its prompts are asked in batches.
    pub(crate) fn is_batched(&self) -> bool {
        self.spec.teacher.as_ref().is_some_and(TeacherSpec::is_batched)
    }

    /// Rows that one of its calls asks about.
    pub(crate) fn rows_per_call(&self) -> usize {
        self.spec.teacher.as_ref().map_or(1, |teacher| teacher.rows_per_call.max(1) as usize)
    }

    /// The most that asking a question once can cost: at the price of batches, where it is asked in one.
    pub(crate) fn bound(&self, profile: u32, question: &Question) -> CallBound {
        self.priced(profile).map(|profile| profile.bound(question)).unwrap_or_default()
    }

    /// The profile at this place, with the prices that apply to this job.
    pub(crate) fn priced(&self, profile: u32) -> Option<&Profile> {
        let teacher = self.teacher(profile)?;
        let batches = teacher.batches().filter(|_| self.is_batched());
        Some(batches.map_or_else(|| teacher.profile(), BatchTeacher::profile))
    }

    /// The place of the strongest of the job's profiles: the one that is measured, and that gives hints.
    pub(crate) fn strongest(&self) -> u32 {
        u32::try_from(self.teachers.len()).unwrap_or(u32::MAX).saturating_sub(1)
    }

    /// The teacher at this place of the job's profiles.
    pub(crate) fn teacher(&self, profile: u32) -> Option<&Teacher> {
        self.teachers.get(usize::try_from(profile).ok()?)
    }

    /// How its teacher is asked.
    fn asks(&self) -> Result<&TeacherSpec, HarvestError> {
        let teacher = self.spec.teacher.as_ref();
        teacher.ok_or_else(|| HarvestError::Stuck("this job has no teacher to ask".to_owned()))
    }

    /// The question that a prompt asks.
    pub(crate) fn question_of(&self, prompt: &Prompt, example: &Example) -> Result<Question, HarvestError> {
        let greedy = prompt.purpose == Purpose::Evaluate;
        self.question(example, prompt.sample, prompt.hinted, greedy)
    }

    /// The same, rendered [apart](Self::apart).
    pub(crate) async fn question_apart(
        self: &Arc<Self>,
        leased: &LeasedPrompt,
    ) -> Result<Question, HarvestError> {
        let (prompt, example) = (leased.prompt.clone(), leased.example.clone());
        self.apart(move |job| job.question_of(&prompt, &example)).await
    }

    /// What a completion comes to as the answer to a prompt; `calls` end with it.
    pub(crate) fn harvested(
        &self,
        prompt: &Prompt,
        example: &Example,
        completion: Completion,
        calls: Vec<(CallId, CallEnd)>,
    ) -> Harvested {
        let task = &self.spec.task;
        let parsed = completion::parse(task, example, &completion.text, completion.finish_reason);
        let gold = example.label.as_deref();
        let (verdict, reason) = judge::provisional(&self.spec.judging, task.metric, gold, &parsed);
        let (prompt, attempt) = (prompt.id, prompt.attempt);
        Harvested { prompt, attempt, completion, cached: false, calls, parsed, verdict, reason }
    }

    /// The question about `example`: sample number `sample`, with the gold label as a hint where `hinted`.
    pub(crate) fn question(
        &self,
        example: &Example,
        sample: u32,
        hinted: bool,
        greedy: bool,
    ) -> Result<Question, HarvestError> {
        let teacher = self.asks()?;
        let rendered = self.renderer.render(example, hint(example, hinted))?;
        let sampling = self.sampling(teacher, sample, greedy);
        Ok(Question { instruction: rendered.instruction, prompt: rendered.prompt, sampling })
    }

    /// One question about several examples, with room for all of their answers; the rest is as of [`question`](Self::question).
    ///
    /// No stop sequence of the task is sent, each of which would end the text behind the first answer; the answers are cut at
    /// them when they are read.
    pub(crate) fn question_together(
        &self,
        examples: &[&Example],
        sample: u32,
        hinted: bool,
        greedy: bool,
    ) -> Result<Question, HarvestError> {
        let teacher = self.asks()?;
        let rows: Vec<(&Example, Option<&str>)> =
            examples.iter().map(|example| (*example, hint(example, hinted))).collect();
        let rendered = self.renderer.render_together(&rows)?;
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let sampling = Sampling {
            tokens_max: teacher.tokens_max.saturating_mul(count).min(TOKENS_MAX),
            stop: vec![format!("\n[{}]", count.saturating_add(1))],
            ..self.sampling(teacher, sample, greedy)
        };
        Ok(Question { instruction: rendered.instruction, prompt: rendered.prompt, sampling })
    }

    fn sampling(&self, teacher: &TeacherSpec, sample: u32, greedy: bool) -> Sampling {
        Sampling {
            temperature: if greedy { 0.0 } else { teacher.temperature },
            top_p: if greedy { 1.0 } else { teacher.top_p },
            tokens_max: teacher.tokens_max,
            stop: self.spec.task.stop.clone(),
            sample,
        }
    }
}

/// The label that a question gives away.
fn hint(example: &Example, hinted: bool) -> Option<&str> {
    if hinted { example.label.as_deref() } else { None }
}

/// An answer under its content address.
pub(crate) fn completion(key: CompletionKey, reply: Reply) -> Completion {
    Completion {
        key,
        text: reply.text,
        finish_reason: reply.finish_reason,
        model: reply.model,
        tokens_in: reply.usage.tokens_in,
        tokens_out: reply.usage.tokens_out,
        money_micros: reply.usage.money_micros,
        seconds: reply.seconds,
    }
}
