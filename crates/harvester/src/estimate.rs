//! What a job would ask: counted from its rows, its rules and the store, without asking; or with a few rows asked to see
//! what comes back.

use crate::address::Askers;
use crate::apart::apart;
use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::plan;
use crate::shared::Shared;
use crate::submit;
use domain::budget::Amount;
use domain::completion;
use domain::estimate::{Estimate, Probed, RenderedPrompt, Stage, StageEstimate};
use domain::example::Row;
use domain::ids::DatasetId;
use domain::judge;
use domain::policy::Rules;
use domain::ports::BATCH_MAX;
use domain::records::Completion;
use domain::spec::{Hint, Spec, TeacherSource, TeacherSpec};
use domain::state::Verdict;
use domain::{Example, Split};
use std::sync::Arc;
use teacher::{Question, Teacher, Unmetered, estimate_tokens};

/// Prompts that are shown.
const PROMPTS_SHOWN: usize = 3;
/// Most rows that are asked about to see what comes back.
pub(crate) const PROBE_MAX: u32 = 64;
/// The share of rows whose labels are expected to be wrong where nothing is known: that of PaLM-540B on SVAMP and CQA
/// (Hsieh et al. 2023), rounded up.
const WRONG_EXPECTED: f64 = 0.3;
/// Tokens at most by which a prompt about several rows is longer than prompts about each of them.
const TOGETHER_TOKENS_MAX: u64 = 512;
/// Calls of one prompt at most, retries apart: a truncated answer is asked once more, with twice the room.
const CALLS_OF_PROMPT: u64 = 2;

/// What a job of a checked specification would ask. `probe_rows` of its train rows are asked about now; their answers are kept.
pub(crate) async fn estimate(
    shared: &Shared,
    spec: Spec,
    dataset: DatasetId,
    probe_rows: u32,
) -> Result<Estimate, HarvestError> {
    let (draft, teachers) = (submit::draft(&spec, dataset), Arc::clone(&shared.teachers));
    let job = Arc::new(apart(move || PreparedJob::open(&teachers, &draft)).await?);
    let asked = job.spec.teacher.clone().filter(|teacher| teacher.source != TeacherSource::Imported);
    let Some(teacher) = asked else { return Ok(Estimate::default()) };
    let mut estimate = Estimate::default();
    let askers = Askers::of(&job).await;
    let probed = probe(shared, &job, &askers, probe_rows.min(PROBE_MAX)).await?;
    let wrong = wrong_share(&probed);
    let rules = Rules { teacher: &teacher, judging: &job.spec.judging, metric: job.spec.task.metric };
    let samples = rules.samples_first();
    let mut train = Counted::default();
    let limit = teacher.rows.map_or(u64::MAX, u64::from);
    let mut rows = Rows::new(&job, Split::Train);
    let hinted = job.spec.judging.hint == Hint::First;
    while let Some(row) = rows.next(shared).await? {
        if train.rows >= limit {
            break;
        }
        train.rows += 1;
        train.labelled += u64::from(row.example.label.is_some());
        let example = row.example.clone();
        let render = move |job: &PreparedJob| {
            let asked = (0..samples).map(|sample| job.question(&example, sample, hinted, false));
            asked.collect::<Result<Vec<Question>, HarvestError>>()
        };
        for (question, sample) in job.apart(render).await?.into_iter().zip(0..) {
            if estimate.prompts.len() < PROMPTS_SHOWN && sample == 0 {
                estimate.prompts.push(rendered(&row, &question));
            }
            train.add(shared, &job, &askers, 0, &question).await?;
        }
        train.keep(&job, row.example);
    }
    train.measure_together(&job, hinted).await?;
    estimate.stages.push(train.stage(&job, Stage::Train, 0, 1.0));
    // A follow-up is asked about rows with a gold label only, of which some are wrong; its prompts are like the first ones.
    let follow_up = |share: f64, samples: u32| {
        share * train.labelled as f64 * f64::from(samples) / train.prompts.max(1) as f64
    };
    let mut left = wrong;
    for profile in (1_u32..).take(job.teachers.len().saturating_sub(1)) {
        estimate.stages.push(train.stage(&job, Stage::Stronger, profile, follow_up(left, samples)));
        left *= wrong;
    }
    if job.spec.judging.hint == Hint::After {
        let last = job.strongest();
        estimate.stages.push(train.stage(&job, Stage::Hints, last, follow_up(left, 1)));
    }
    if teacher.evaluate {
        estimate.stages.push(evaluation(shared, &job, &teacher, &askers).await?);
    }
    estimate.probed = probed;
    Ok(estimate)
}

/// The stage that measures the teacher.
async fn evaluation(
    shared: &Shared,
    job: &Arc<PreparedJob>,
    teacher: &TeacherSpec,
    askers: &Askers,
) -> Result<StageEstimate, HarvestError> {
    let (profile, chosen) = (job.strongest(), plan::measured_rows(shared, job, teacher).await?);
    let mut counted = Counted::default();
    let mut rows = Rows::new(job, Split::Test);
    while let Some(row) = rows.next(shared).await? {
        if chosen.contains(&row.index) {
            let example = row.example.clone();
            let question = job.apart(move |job| job.question(&example, 0, false, true)).await?;
            counted.add(shared, job, askers, profile, &question).await?;
            counted.keep(job, row.example);
        }
    }
    counted.measure_together(job, false).await?;
    Ok(counted.stage(job, Stage::Evaluate, profile, 1.0))
}

/// The rows of a split, in order.
struct Rows<'a> {
    job: &'a PreparedJob,
    split: Split,
    from: u64,
    page: std::vec::IntoIter<Row>,
}

impl<'a> Rows<'a> {
    fn new(job: &'a PreparedJob, split: Split) -> Self {
        Self { job, split, from: 0, page: Vec::new().into_iter() }
    }

    async fn next(&mut self, shared: &Shared) -> Result<Option<Row>, HarvestError> {
        if self.page.len() == 0 {
            let rows =
                shared.stores.datasets.rows(self.job.dataset, Some(self.split), self.from, BATCH_MAX).await?;
            self.page = rows.into_iter();
        }
        let next = self.page.next();
        if let Some(row) = &next {
            self.from = row.index + 1;
        }
        Ok(next)
    }
}

/// Prompts, and what they would cost one by one.
#[derive(Debug, Default)]
struct Counted {
    rows: u64,
    labelled: u64,
    prompts: u64,
    from_store: u64,
    tokens_in: u64,
    /// The bounds of these prompts together, at each of the job's profiles.
    most: Vec<Amount>,
    /// The first of them, as many as one call asks about.
    first: Vec<Example>,
    /// Tokens of a prompt about these together, for one about each of them alone.
    together: Option<f64>,
}

impl Counted {
    async fn add(
        &mut self,
        shared: &Shared,
        job: &PreparedJob,
        askers: &Askers,
        profile: u32,
        question: &Question,
    ) -> Result<(), HarvestError> {
        self.prompts += 1;
        if askers.find(shared, question, profile).await?.model.is_some() {
            self.from_store += 1;
        }
        self.tokens_in = self.tokens_in.saturating_add(prompt_tokens(question));
        self.most.resize(job.teachers.len(), Amount::default());
        for (most, place) in self.most.iter_mut().zip(0_u32..) {
            *most = most.plus(Amount::of(job.bound(place, question)));
        }
        Ok(())
    }

    /// Keeps a row where the first call will ask about it.
    fn keep(&mut self, job: &PreparedJob, example: Example) {
        if self.first.len() < job.rows_per_call() {
            self.first.push(example);
        }
    }

    /// Finds out what asking about several rows at once spares.
    async fn measure_together(&mut self, job: &Arc<PreparedJob>, hinted: bool) -> Result<(), HarvestError> {
        if job.rows_per_call() < 2 || self.first.is_empty() {
            return Ok(());
        }
        let examples = self.first.clone();
        let measure = move |job: &PreparedJob| -> Result<f64, HarvestError> {
            let mut alone = 0;
            for example in &examples {
                alone += prompt_tokens(&job.question(example, 0, hinted, false)?);
            }
            let examples: Vec<&Example> = examples.iter().collect();
            Ok(ratio(prompt_tokens(&job.question_together(&examples, 0, hinted, false)?), alone))
        };
        self.together = Some(job.apart(measure).await?);
        Ok(())
    }

    /// The stage that asks `share` times as many prompts as these, of another profile perhaps.
    fn stage(&self, job: &PreparedJob, stage: Stage, profile: u32, share: f64) -> StageEstimate {
        let teacher = job.priced(profile);
        let scaled = |number: u64, share: f64| (number as f64 * share).round().max(0.0) as u64;
        let is_first = stage == Stage::Train || stage == Stage::Evaluate;
        let from_store = if is_first { self.from_store } else { 0 };
        let prompts = scaled(self.prompts, share);
        let rows_per_call = job.rows_per_call() as u64;
        let asked = prompts.saturating_sub(from_store);
        let tokens_in = scaled(self.tokens_in, share * ratio(asked, prompts) * self.together.unwrap_or(1.0));
        let tokens_out = asked.saturating_mul(answer_tokens(job));
        // A follow-up can be asked about every row.
        let all = if is_first {
            asked
        } else {
            scaled(self.labelled.max(1), ratio(prompts, prompts.max(1))).max(prompts)
        };
        let most =
            usize::try_from(profile).ok().and_then(|place| self.most.get(place)).copied().unwrap_or_default();
        let each = average(most, self.prompts);
        // What is cut in a batch is not asked again.
        let most_alone = all.saturating_mul(if job.is_batched() { 1 } else { CALLS_OF_PROMPT });
        // Every call about several rows may bring nothing, so that each of them is asked about alone.
        let (together, prompts_of_together) =
            if rows_per_call > 1 { (all.div_ceil(rows_per_call), all) } else { (0, 0) };
        let bounds = most_alone.saturating_add(prompts_of_together);
        let frames = together.saturating_mul(TOGETHER_TOKENS_MAX);
        StageEstimate {
            stage,
            profile: teacher.map(|teacher| teacher.name.clone()).unwrap_or_default(),
            prompts,
            from_store,
            expected: Amount {
                calls: asked.div_ceil(rows_per_call),
                tokens: tokens_in.saturating_add(tokens_out),
                money_micros: teacher.map_or(0, |teacher| teacher.price(tokens_in, tokens_out)),
            },
            at_most: Amount {
                calls: most_alone.saturating_add(together),
                tokens: each.tokens.saturating_mul(bounds).saturating_add(frames),
                money_micros: each
                    .money_micros
                    .saturating_mul(bounds)
                    .saturating_add(teacher.map_or(0, |teacher| teacher.price(frames, 0))),
            },
        }
    }
}

fn prompt_tokens(question: &Question) -> u64 {
    estimate_tokens(&question.prompt).saturating_add(estimate_tokens(&question.instruction))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn average(sum: Amount, count: u64) -> Amount {
    let count = count.max(1);
    Amount { calls: 1, tokens: sum.tokens.div_ceil(count), money_micros: sum.money_micros.div_ceil(count) }
}

/// Tokens that an answer may take.
fn answer_room(job: &PreparedJob) -> u64 {
    job.spec.teacher.as_ref().map_or(0, |teacher| u64::from(teacher.tokens_max))
}

/// Tokens of an answer, by those of the exemplars.
fn answer_tokens(job: &PreparedJob) -> u64 {
    let exemplars = &job.spec.task.exemplars;
    let bytes: usize = exemplars
        .iter()
        .map(|exemplar| {
            exemplar.rationale.len() + job.spec.task.answer.marker.len() + exemplar.label.len() + 2
        })
        .sum();
    let tokens = (bytes as u64).div_ceil(4 * exemplars.len().max(1) as u64);
    if exemplars.is_empty() { answer_room(job) / 2 } else { tokens.min(answer_room(job)) }
}

fn rendered(row: &Row, question: &Question) -> RenderedPrompt {
    RenderedPrompt {
        row: row.index,
        instruction: question.instruction.clone(),
        prompt: question.prompt.clone(),
    }
}

/// The share of probed rows whose label is wrong by gold; the usual one where nothing was probed.
fn wrong_share(probed: &[Probed]) -> f64 {
    let judged: Vec<&Probed> =
        probed.iter().filter(|row| row.gold.is_some() && row.error.is_empty()).collect();
    if judged.is_empty() {
        return WRONG_EXPECTED;
    }
    let wrong = judged.iter().filter(|row| row.verdict != Verdict::Accepted).count();
    wrong as f64 / judged.len() as f64
}

/// Asks about the first train rows, and keeps what is answered: it is not paid for again.
async fn probe(
    shared: &Shared,
    job: &Arc<PreparedJob>,
    askers: &Askers,
    count: u32,
) -> Result<Vec<Probed>, HarvestError> {
    let Some(asked) = job.teacher(0).cloned() else { return Ok(Vec::new()) };
    let mut probed = Vec::new();
    let mut rows = Rows::new(job, Split::Train);
    while probed.len() < count as usize {
        let Some(row) = rows.next(shared).await? else { break };
        probed.push(probe_row(shared, job, askers, &asked, &row).await?);
    }
    Ok(probed)
}

async fn probe_row(
    shared: &Shared,
    job: &Arc<PreparedJob>,
    askers: &Askers,
    asked: &Teacher,
    row: &Row,
) -> Result<Probed, HarvestError> {
    let hinted = job.spec.judging.hint == Hint::First;
    let example = row.example.clone();
    let question = job.apart(move |job| job.question(&example, 0, hinted, false)).await?;
    let key = askers.find(shared, &question, 0).await?.key;
    let known = shared.stores.prompts.completion(key).await?;
    let from_store = known.is_some();
    let shown = rendered(row, &question);
    let gold = row.example.label.clone();
    let completion = match known {
        Some(completion) => completion,
        None => match asked.ask(question, Arc::new(Unmetered)).await {
            Ok(reply) => {
                let completion = crate::job::completion(key, reply);
                shared.stores.prompts.keep_completions(vec![completion.clone()]).await?;
                completion
            }
            Err(error) => {
                let (verdict, reason) = (Verdict::Rejected, None);
                let error = error.to_string();
                let (completion, parsed) = (String::new(), None);
                return Ok(Probed {
                    asked: shown,
                    completion,
                    parsed,
                    gold,
                    verdict,
                    reason,
                    error,
                    from_store,
                });
            }
        },
    };
    let Completion { text, finish_reason, .. } = completion;
    let parsed = completion::parse(&job.spec.task, &row.example, &text, finish_reason);
    let (verdict, reason) =
        judge::provisional(&job.spec.judging, job.spec.task.metric, gold.as_deref(), &parsed);
    let error = String::new();
    Ok(Probed {
        asked: shown,
        completion: text,
        parsed: Some(parsed),
        gold,
        verdict,
        reason,
        error,
        from_store,
    })
}
