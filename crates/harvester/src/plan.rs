//! The prompts of a job, wave by wave: what `domain::policy` asks next of what is known.
//!
//! A job begins with a few rows, for the smoke gate; after that a new wave is planned while the last part of the one before
//! is still being asked, so that asking never waits for planning. Where a wave begins is remembered in this process alone:
//! another driver looks from the first row on, and finds the same.

use crate::address::{Addressed, Askers};
use crate::at_work::Mark;
use crate::batches;
use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::ledger::Ledger;
use crate::position::Position;
use crate::shared::Shared;
use crate::stage::Stage;
use domain::Split;
use domain::budget::CallBound;
use domain::completion;
use domain::completion::FinishReason;
use domain::event::EventKind;
use domain::example::Row;
use domain::fingerprint::imported_key;
use domain::ids::PromptId;
use domain::judge;
use domain::policy::{self, Ask, Fate, Known, Rules, Smoke, WAVE_MAX};
use domain::ports::{BATCH_MAX, PLAN_MAX, StoreResult};
use domain::records::{
    Batch, Completion, Distillation, HarvestProgress, Harvested, LedgerEntry, NewPrompt, Prompt,
};
use domain::share::Share;
use domain::spec::{TeacherSource, TeacherSpec};
use domain::state::{DistillationState, PromptState, Purpose, Reason};
use domain::subset;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Prompts that are still being asked when the next wave is planned.
const WAVE_REST: u64 = WAVE_MAX as u64 / 2;
/// Answers after which it is worth looking for follow-ups again.
const ANSWERS_STEP: u64 = WAVE_MAX as u64 / 8;
/// How long rendering goes on for one wave, so that a job of slow templates holds up no other, and is looked at again.
const PLANNING_MAX: Duration = Duration::from_secs(2);
/// Completions that a pause of the smoke gate shows, and how much of each.
const COMPLETIONS_SHOWN: usize = 3;
const CHARACTERS_SHOWN: usize = 120;
/// How the reason of a pause of the smoke gate begins.
const GATE: &str = "smoke gate: ";

/// Plans the job's first prompts and moves it to `harvesting`. Repeating it changes nothing.
pub(crate) async fn begin(shared: &Shared, job: &Arc<PreparedJob>) -> Result<(), HarvestError> {
    match job.spec.teacher.as_ref() {
        None => shared.stores.prompts.plan_prompts(job.id, Vec::new()).await?,
        Some(teacher) if teacher.source == TeacherSource::Imported => import(shared, job, teacher).await?,
        // Labels alone are tried before anything is asked.
        Some(teacher) if teacher.stops_early() => {
            shared.stores.prompts.plan_prompts(job.id, Vec::new()).await?;
        }
        Some(teacher) => {
            let mut position = Position::default();
            let gated = is_gated(shared, job, teacher).await?;
            let rows_max = if gated { teacher.smoke_rows } else { u32::MAX };
            let (asking, pending) = (Asking::of(shared, job, teacher).await?, Pending::default());
            let mut wave = train_wave(shared, &asking, &pending, None, &mut position, rows_max).await?;
            if !gated && wave.len() < WAVE_MAX {
                wave.extend(measured(shared, &asking).await?);
            }
            let wave = asking.askers.settle(shared, wave).await?;
            write(shared, job, wave).await?;
        }
    }
    shared.changed.notify_waiters();
    Ok(())
}

/// The numbers of a job's harvest, with how many prompts it is expected to have, and what its `batches` keep it waiting for.
pub(crate) async fn progress(
    shared: &Shared,
    job: &Distillation,
    batches: &[Batch],
) -> StoreResult<HarvestProgress> {
    let progress = shared.stores.prompts.harvest_progress(job.id).await?;
    let asks = job.spec.teacher.as_ref().filter(|teacher| teacher.source != TeacherSource::Imported);
    let Some(teacher) = asks.filter(|_| job.state == DistillationState::Harvesting) else {
        return Ok(progress);
    };
    let rules = Rules { teacher, judging: &job.spec.judging, metric: job.spec.task.metric };
    let train = shared.stores.datasets.row_counts(job.dataset, Split::Train).await?.rows;
    let train = train.min(teacher.rows.map_or(u64::MAX, u64::from));
    let train = match teacher.stops_early() {
        true => {
            let share =
                Share::ALL.get(crate::probes::probed(shared, job.id).await?).copied().unwrap_or(Share::All);
            train.saturating_mul(u64::from(share.eighths())).div_ceil(u64::from(Share::All.eighths()))
        }
        false => train,
    };
    let test = shared.stores.datasets.row_counts(job.dataset, Split::Test).await?.labelled;
    let test = if teacher.evaluate { test.min(u64::from(teacher.evaluate_rows)) } else { 0 };
    let expected = train.saturating_mul(u64::from(rules.samples_first())).saturating_add(test);
    let obstacle = match progress.obstacle.is_empty() {
        true => batches::waited_for(batches),
        false => progress.obstacle,
    };
    Ok(HarvestProgress { expected, obstacle, ..progress })
}

/// How a harvest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Prompts were planned.
    Planned,
    /// Prompts wait, or are being asked.
    Waiting,
    /// It is done.
    Done,
}

impl Next {
    fn of(is_planned: bool, waiting: u64) -> Self {
        match (is_planned, waiting) {
            (true, _) => Self::Planned,
            (false, 0) => Self::Done,
            (false, _) => Self::Waiting,
        }
    }
}

/// Plans what follows from what is known. A job that is asked in batches plans wave after wave, until there is nothing more to
/// ask, and then waits for all that is out: the waves of a stage go out together.
pub(crate) async fn extend(
    shared: &Shared,
    job: &Arc<PreparedJob>,
    progress: &HarvestProgress,
    stage: &Stage,
) -> Result<Next, HarvestError> {
    let Some(teacher) = job.spec.teacher.as_ref().filter(|_| !job.is_imported()) else {
        return Ok(Next::of(false, progress.total() - progress.done()));
    };
    let waiting = progress.total() - progress.done();
    // A budget that is used up ends the harvest with what it has.
    let is_exhausted = progress.in_state(PromptState::Skipped) > 0;
    if is_exhausted {
        return Ok(Next::of(false, waiting));
    }
    let is_out = if job.is_batched() { progress.open.calls > 0 } else { waiting > WAVE_REST };
    if is_out {
        return Ok(Next::Waiting);
    }
    let mut position = shared.positions.get(job.id);
    if progress.done() < position.seen || position.share != Some(stage.share) {
        // Answers were forgotten, or further rows may be asked about: from the first one on.
        position.train = (0, 0);
        position.done = 0;
    }
    position.seen = progress.done();
    position.share = Some(stage.share);
    shared.positions.set(job.id, position);
    if !position.is_past_gate {
        if progress.total() <= gate_prompts(job, teacher) && is_gated(shared, job, teacher).await? {
            if waiting > 0 {
                return Ok(Next::Waiting);
            }
            if progress.total() == 0 {
                let asking = Asking::of(shared, job, teacher).await?;
                let (pending, rows, most) = (Pending::default(), stage.rows.as_deref(), teacher.smoke_rows);
                let wave = train_wave(shared, &asking, &pending, rows, &mut position, most).await?;
                let is_planned = plan(shared, job, asking.askers.settle(shared, wave).await?).await?;
                return Ok(Next::of(is_planned, waiting));
            }
            pass_gate(shared, job, progress).await?;
        }
        position.is_past_gate = true;
    }
    let is_early = position.done > 0 && progress.done() < position.done + ANSWERS_STEP;
    if waiting > 0 && is_early && !job.is_batched() {
        return Ok(Next::Waiting);
    }
    position.done = progress.done().max(1);
    let pending = Pending::of(shared, job).await?;
    let asking = Asking::of(shared, job, teacher).await?;
    let rows = stage.rows.as_deref();
    let mut wave = train_wave(shared, &asking, &pending, rows, &mut position, u32::MAX).await?;
    if wave.len() < WAVE_MAX && !position.is_measured {
        wave.extend(measured(shared, &asking).await?);
        position.is_measured = true;
    }
    let planned = !wave.is_empty() && plan(shared, job, asking.askers.settle(shared, wave).await?).await?;
    shared.positions.set(job.id, position);
    Ok(Next::of(planned, waiting))
}

/// A job that asks, and whom, while its prompts are planned.
struct Asking<'a> {
    job: &'a Arc<PreparedJob>,
    teacher: &'a TeacherSpec,
    askers: Arc<Askers>,
    _at_work: Mark,
}

impl<'a> Asking<'a> {
    async fn of(
        shared: &Shared,
        job: &'a Arc<PreparedJob>,
        teacher: &'a TeacherSpec,
    ) -> Result<Self, HarvestError> {
        let _at_work = shared.at_work.at(job.id).await?;
        Ok(Self { job, teacher, askers: Arc::new(Askers::of(job).await), _at_work })
    }

    /// The prompts that ask this about a row.
    async fn prompts(
        &self,
        row: Row,
        asks: Vec<Ask>,
        purpose: Purpose,
    ) -> Result<Vec<Addressed>, HarvestError> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let askers = Arc::clone(&self.askers);
        let render = move |job: &PreparedJob| {
            asks.into_iter().map(|ask| prompt(job, &askers, &row, ask, purpose)).collect()
        };
        self.job.apart(render).await
    }
}

/// Writes a wave. Returns whether any of it is new: a prompt that was planned before is not planned twice.
async fn plan(shared: &Shared, job: &PreparedJob, wave: Vec<NewPrompt>) -> Result<bool, HarvestError> {
    let before = shared.stores.prompts.harvest_progress(job.id).await?.total();
    write(shared, job, wave).await?;
    shared.changed.notify_waiters();
    Ok(shared.stores.prompts.harvest_progress(job.id).await?.total() > before)
}

/// Writes prompts, part by part. One that breaks off in between is planned again from where it began, and finds what is there.
async fn write(shared: &Shared, job: &PreparedJob, wave: Vec<NewPrompt>) -> StoreResult<()> {
    for part in parts(wave) {
        shared.stores.prompts.plan_prompts(job.id, part).await?;
    }
    Ok(())
}

/// What is written at once, at least one part: whole rows, so that no row is asked about in part.
fn parts(wave: Vec<NewPrompt>) -> Vec<Vec<NewPrompt>> {
    let mut parts = vec![Vec::new()];
    for row in wave.chunk_by(|one, next| one.row == next.row) {
        match parts.last_mut() {
            Some(part) if part.is_empty() || part.len() + row.len() <= PLAN_MAX => {
                part.extend_from_slice(row)
            }
            Some(_) | None => parts.push(row.to_vec()),
        }
    }
    parts
}

/// Prompts without an answer: those that wait, and those that were given up.
#[derive(Debug, Default)]
struct Pending {
    waiting: HashSet<u64>,
    parked: HashMap<u64, Vec<Prompt>>,
}

impl Pending {
    async fn of(shared: &Shared, job: &PreparedJob) -> Result<Self, HarvestError> {
        let mut pending = Self::default();
        for state in [PromptState::Pending, PromptState::Leased, PromptState::Parked] {
            let mut after = None;
            loop {
                let page = shared.stores.prompts.prompts_in_state(job.id, state, after, BATCH_MAX).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.row);
                for prompt in page.into_iter().filter(|prompt| prompt.purpose == Purpose::Train) {
                    if state == PromptState::Parked {
                        pending.parked.entry(prompt.row).or_default().push(prompt);
                    } else {
                        pending.waiting.insert(prompt.row);
                    }
                }
            }
        }
        Ok(pending)
    }

    /// What is known of a row's prompts.
    fn known<'a>(&self, row: u64, entries: &'a [LedgerEntry]) -> Vec<Known<'a>> {
        let answered = entries.iter().filter(|entry| entry.purpose == Purpose::Train).map(|entry| Known {
            sample: entry.sample,
            hinted: entry.hinted,
            fate: Fate::Answered(entry),
        });
        let parked = self.parked.get(&row).into_iter().flatten().map(|prompt| Known {
            sample: prompt.sample,
            hinted: prompt.hinted,
            fate: Fate::GivenUp,
        });
        answered.chain(parked).collect()
    }
}

/// The next prompts of train rows (of `chosen` ones, where it is not all), from where the job stands, over at most `rows_max`
/// rows.
async fn train_wave(
    shared: &Shared,
    asking: &Asking<'_>,
    pending: &Pending,
    chosen: Option<&HashSet<u64>>,
    position: &mut Position,
    rows_max: u32,
) -> Result<Vec<Addressed>, HarvestError> {
    let Asking { job, teacher, .. } = asking;
    let rules = Rules { teacher, judging: &job.spec.judging, metric: job.spec.task.metric };
    let mut ledger = Ledger::new(shared, job.id);
    let (mut from, mut place) = position.train;
    let end = teacher.rows.unwrap_or(u32::MAX).min(place.saturating_add(rows_max));
    let mut first_open = None;
    let mut wave = Vec::new();
    let began = Instant::now();
    let is_full =
        |wave: &Vec<Addressed>| wave.len() >= WAVE_MAX || !wave.is_empty() && began.elapsed() >= PLANNING_MAX;
    while place < end && !is_full(&wave) {
        let limit = BATCH_MAX.min((end - place) as usize);
        let rows = shared.stores.datasets.rows(job.dataset, Some(Split::Train), from, limit).await?;
        let Some(last) = rows.last() else { break };
        from = last.index + 1;
        for row in rows {
            if is_full(&wave) {
                from = row.index;
                break;
            }
            if chosen.is_some_and(|chosen| !chosen.contains(&row.index)) {
                continue;
            }
            let entries = ledger.of(row.index).await?;
            let is_waiting = pending.waiting.contains(&row.index);
            let asks = match is_waiting {
                true => Vec::new(),
                false => {
                    policy::next(&rules, row.example.label.as_deref(), &pending.known(row.index, &entries))
                }
            };
            if (is_waiting || !asks.is_empty()) && first_open.is_none() {
                first_open = Some((row.index, place));
            }
            wave.extend(asking.prompts(row, asks, Purpose::Train).await?);
            place += 1;
        }
    }
    // A row that will be asked nothing more is not looked at again.
    position.train = match first_open {
        Some(open) if rules.has_follow_ups() => open,
        Some(_) | None => (from, place),
    };
    Ok(wave)
}

/// The test rows that measure the teacher: as many of those with a gold label as the specification allows.
pub(crate) async fn measured_rows(
    shared: &Shared,
    job: &PreparedJob,
    teacher: &TeacherSpec,
) -> Result<HashSet<u64>, HarvestError> {
    let mut labelled = Vec::new();
    each_row(shared, job, Split::Test, None, |row| {
        if row.example.label.is_some() {
            labelled.push(row.index);
        }
        Ok(())
    })
    .await?;
    Ok(subset::sample(labelled, teacher.evaluate_rows))
}

/// The prompts that measure the strongest teacher: one greedy answer for each of [`measured_rows`].
async fn measured(shared: &Shared, asking: &Asking<'_>) -> Result<Vec<Addressed>, HarvestError> {
    let Asking { job, teacher, .. } = asking;
    if !teacher.evaluate {
        return Ok(Vec::new());
    }
    let chosen = measured_rows(shared, job, teacher).await?;
    let mut rows = Vec::with_capacity(chosen.len());
    each_row(shared, job, Split::Test, None, |row| {
        rows.extend(Some(row).filter(|row| chosen.contains(&row.index)));
        Ok(())
    })
    .await?;
    let (mut prompts, ask) =
        (Vec::with_capacity(rows.len()), Ask { profile: job.strongest(), sample: 0, hinted: false });
    for row in rows {
        prompts.extend(asking.prompts(row, vec![ask], Purpose::Evaluate).await?);
    }
    Ok(prompts)
}

fn prompt(
    job: &PreparedJob,
    askers: &Askers,
    row: &Row,
    ask: Ask,
    purpose: Purpose,
) -> Result<Addressed, HarvestError> {
    let Ask { profile, sample, hinted } = ask;
    let question = job.question(&row.example, sample, hinted, purpose == Purpose::Evaluate)?;
    let bound = job.bound(profile, &question);
    let (id, row) = (PromptId::generate(), row.index);
    let prompt = |key| NewPrompt { id, row, sample, profile, hinted, purpose, key, bound };
    askers.address(&question, profile, prompt)
}

/// Prompts that are asked before the gate.
fn gate_prompts(job: &PreparedJob, teacher: &TeacherSpec) -> u64 {
    let rules = Rules { teacher, judging: &job.spec.judging, metric: job.spec.task.metric };
    u64::from(teacher.smoke_rows.min(teacher.rows.unwrap_or(u32::MAX))) * u64::from(rules.samples_first())
}

/// Whether there is a gate: a job of no more rows than it looks at has nothing left to spare.
async fn is_gated(shared: &Shared, job: &PreparedJob, teacher: &TeacherSpec) -> Result<bool, HarvestError> {
    let rows = shared.stores.datasets.row_counts(job.dataset, Split::Train).await?.rows;
    let asked = rows.min(teacher.rows.map_or(u64::MAX, u64::from));
    Ok(teacher.smoke_rows > 0 && asked > u64::from(teacher.smoke_rows))
}

/// Lets a job pass the smoke gate.
///
/// # Errors
/// Too few of its first answers can be read, and nobody has resumed it since it was paused for that: what to do.
async fn pass_gate(
    shared: &Shared,
    job: &PreparedJob,
    progress: &HarvestProgress,
) -> Result<(), HarvestError> {
    let entries =
        shared.stores.prompts.ledger(job.id, &domain::ports::LedgerFilter::default(), BATCH_MAX).await?;
    let mut smoke = Smoke::default();
    let train = || entries.iter().filter(|entry| entry.purpose == Purpose::Train);
    train().for_each(|entry| smoke.count(Some(entry.parsed.reason)));
    (0..progress.in_state(PromptState::Parked)).for_each(|_| smoke.count(None));
    if !smoke.fails() || was_stopped_by_gate(shared, job).await? {
        return Ok(());
    }
    let mut words = format!("{GATE}{smoke}, and the other rows are not asked about yet.");
    for entry in train().filter(|entry| entry.parsed.reason.is_some()).take(COMPLETIONS_SHOWN) {
        let text: String = entry.completion.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = text.chars().take(CHARACTERS_SHOWN).collect();
        words.push_str(&format!(" Row {}: `{shown}`.", entry.row));
    }
    let mut reasons: Vec<Reason> = train().filter_map(|entry| entry.parsed.reason).collect();
    reasons.sort();
    reasons.dedup();
    words.push_str(&format!(
        " Correct the task and submit again; or repair the teacher and ask it again: {}; or resume to ask about the other \
         rows all the same",
        crate::judging::ask_again(job, &reasons)
    ));
    Err(HarvestError::Stuck(words))
}

/// Whether the job was paused here before: then a person has looked, and resumed it.
async fn was_stopped_by_gate(shared: &Shared, job: &PreparedJob) -> Result<bool, HarvestError> {
    let events = shared.stores.jobs.events(job.id, 0, BATCH_MAX).await?;
    Ok(events.iter().any(|event| {
        matches!(&event.kind, EventKind::StateChanged { to: DistillationState::Paused, reason, .. }
            if reason.starts_with(GATE))
    }))
}

/// Calls `visit` with every row of a split, in order, at most `rows_max` of them.
async fn each_row(
    shared: &Shared,
    job: &PreparedJob,
    split: Split,
    rows_max: Option<u32>,
    mut visit: impl FnMut(Row) -> Result<(), HarvestError>,
) -> Result<(), HarvestError> {
    let mut left = rows_max.map_or(usize::MAX, |rows| rows as usize);
    let mut from = 0;
    while left > 0 {
        let rows = shared.stores.datasets.rows(job.dataset, Some(split), from, left.min(BATCH_MAX)).await?;
        let Some(last) = rows.last() else { break };
        from = last.index + 1;
        left -= rows.len();
        for row in rows {
            // As in a wave: others get their turn between rows.
            tokio::task::yield_now().await;
            visit(row)?;
        }
    }
    Ok(())
}

/// Writes the answers that came with the data into the ledger.
async fn import(shared: &Shared, job: &Arc<PreparedJob>, teacher: &TeacherSpec) -> Result<(), HarvestError> {
    let _at_work = shared.at_work.at(job.id).await?;
    let mut answered = Vec::new();
    let mut stages = vec![(Split::Train, Purpose::Train, teacher.rows)];
    if teacher.evaluate {
        stages.push((Split::Test, Purpose::Evaluate, None));
    }
    for (split, purpose, rows_max) in stages {
        each_row(shared, job, split, rows_max, |row| {
            for (answer, sample) in row.example.answers.iter().zip(0..) {
                answered.push(imported(job, &row, answer, sample, purpose));
                if purpose == Purpose::Evaluate {
                    break;
                }
            }
            Ok(())
        })
        .await?;
    }
    // An empty plan still moves the job to `harvesting`.
    shared.stores.prompts.plan_prompts(job.id, Vec::new()).await?;
    while !answered.is_empty() {
        let rest = answered.split_off(answered.len().min(BATCH_MAX));
        shared.stores.prompts.record_imported(job.id, answered).await?;
        answered = rest;
    }
    Ok(())
}

fn imported(
    job: &PreparedJob,
    row: &Row,
    answer: &domain::Answer,
    sample: u32,
    purpose: Purpose,
) -> (NewPrompt, Harvested) {
    let id = PromptId::generate();
    let input = job.spec.task.student_input(&row.example);
    let key = imported_key(&input, answer);
    let parsed = completion::parse_imported(&job.spec.task, &row.example, answer);
    let gold = row.example.label.as_deref();
    let (verdict, reason) = judge::provisional(&job.spec.judging, job.spec.task.metric, gold, &parsed);
    let bound = CallBound::default();
    let prompt = NewPrompt { id, row: row.index, sample, profile: 0, hinted: false, purpose, key, bound };
    let completion = Completion {
        key,
        text: answer.text().to_owned(),
        finish_reason: FinishReason::Stop,
        model: answer.teacher().to_owned(),
        tokens_in: 0,
        tokens_out: 0,
        money_micros: 0,
        seconds: 0.0,
    };
    let calls = Vec::new();
    (prompt, Harvested { prompt: id, attempt: 0, completion, cached: true, calls, parsed, verdict, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use conformance::fixtures::question;

    #[test]
    fn a_wave_is_written_in_parts_of_whole_rows() {
        let check = |rows: u64, samples: u32, expected: &[usize]| {
            let wave: Vec<NewPrompt> =
                (0..rows).flat_map(|row| (0..samples).map(move |sample| question(row, sample))).collect();
            let parts = parts(wave.clone());
            assert_eq!(
                parts.iter().map(Vec::len).collect::<Vec<_>>(),
                expected,
                "{rows} rows, {samples} samples"
            );
            assert_eq!(parts.concat(), wave);
        };
        check(0, 1, &[0]);
        check(1_000, 1, &[1_000]);
        check(2_500, 1, &[1_000, 1_000, 500]);
        check(40, 64, &[960, 960, 640]);
    }
}
