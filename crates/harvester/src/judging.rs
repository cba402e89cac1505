//! The end of a harvest: judges every row, measures the teacher, and takes the ledger's fingerprint.

use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::ledger::Ledger;
use crate::shared::Shared;
use domain::example::Row;
use domain::judge::{self, Fingerprint};
use domain::label::{self, Comparison};
use domain::metric::Accuracy;
use domain::ports::{BATCH_MAX, StoreResult};
use domain::records::{LedgerEntry, VerdictUpdate};
use domain::spec::Judging as Rules;
use domain::state::{PromptState, Purpose, Reason};
use std::sync::Arc;

/// The result of judging the whole ledger.
pub(crate) struct Judged {
    /// That of the final run's rationales.
    pub(crate) fingerprint: String,
    /// How many there are.
    pub(crate) accepted: u64,
    /// The teacher on the test rows, where it was asked.
    pub(crate) teacher: Option<Accuracy>,
}

/// What is known of a ledger that is being judged.
#[derive(Default)]
struct Judging {
    fingerprint: Fingerprint,
    updates: Vec<VerdictUpdate>,
    accepted: u64,
    rows: u64,
    correct: u64,
    parsed: u64,
}

impl Judging {
    /// Judges one row by its entries.
    fn add(&mut self, rules: &Rules, metric: Comparison, row: Row, entries: &[LedgerEntry]) {
        let gold = row.example.label.as_deref();
        self.updates.extend(judge::judge_row(rules, metric, gold, entries));
        let evaluated = entries.iter().find(|entry| entry.purpose == Purpose::Evaluate);
        if let (Some(entry), Some(gold)) = (evaluated, gold) {
            let answer = entry.parsed.label.as_deref();
            self.rows += 1;
            self.parsed += u64::from(answer.is_some());
            self.correct += u64::from(answer.is_some_and(|answer| label::same(metric, answer, gold)));
        }
        let learnt = judge::learnt(rules, metric, row, entries);
        self.accepted += learnt.rationales.len() as u64;
        self.fingerprint.add(&learnt);
    }
}

/// Judges every row under the job's own rules and caches the verdicts, for lists and counts. Doing it again gives the
/// same.
pub(crate) async fn judge(shared: &Shared, job: &Arc<PreparedJob>) -> Result<Judged, HarvestError> {
    let _at_work = shared.at_work.at(job.id).await?;
    let (mut judging, mut pages) = (Judging::default(), Pages::of(shared, job));
    while let Some(page) = pages.next().await? {
        let judge = move |job: &PreparedJob| {
            for (row, entries) in page {
                judging.add(&job.spec.judging, job.spec.task.metric, row, &entries);
            }
            judging
        };
        judging = job.apart(judge).await;
    }
    let Judging { fingerprint, mut updates, accepted, rows, correct, parsed } = judging;
    while !updates.is_empty() {
        let rest = updates.split_off(updates.len().min(BATCH_MAX));
        shared.stores.prompts.record_verdicts(job.id, updates).await?;
        updates = rest;
    }
    let teacher = (rows > 0).then(|| Accuracy::measure(rows, correct, parsed));
    Ok(Judged { fingerprint: fingerprint.finish(), accepted, teacher })
}

/// The rows of a job that have ledger entries, in order, page by page, each with its entries by sample.
struct Pages<'a> {
    shared: &'a Shared,
    job: &'a PreparedJob,
    ledger: Ledger<'a>,
    from: u64,
}

impl<'a> Pages<'a> {
    fn of(shared: &'a Shared, job: &'a PreparedJob) -> Self {
        Self { shared, job, ledger: Ledger::new(shared, job.id), from: 0 }
    }

    async fn next(&mut self) -> StoreResult<Option<Vec<(Row, Vec<LedgerEntry>)>>> {
        let Some(next) = self.ledger.next_row(self.from).await? else { return Ok(None) };
        let rows = self.shared.stores.datasets.rows(self.job.dataset, None, next, BATCH_MAX).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.from = last.index + 1;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            let entries = self.ledger.of(row.index).await?;
            if !entries.is_empty() {
                page.push((row, entries));
            }
        }
        Ok(Some(page))
    }
}

/// The commands that ask for a job's answers again that were rejected for these reasons (for any, where there are none).
pub(crate) fn ask_again(job: &PreparedJob, reasons: &[Reason]) -> String {
    let name = &job.spec.name;
    let reasons: String = reasons.iter().map(|reason| format!(" --reason {reason}")).collect();
    format!("`distillery ledger {name} --forget{reasons} --yes`, then `distillery resume {name}`")
}

/// Why nothing was accepted, and what to do about it.
pub(crate) async fn explain_nothing(shared: &Shared, job: &PreparedJob) -> Result<String, HarvestError> {
    let progress = shared.stores.prompts.harvest_progress(job.id).await?;
    let mut words: Vec<String> = Reason::ALL
        .iter()
        .zip(progress.reasons)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let parked = shared.stores.prompts.prompts_in_state(job.id, PromptState::Parked, None, 1).await?;
    if let Some(prompt) = parked.first() {
        words.push(format!(
            "parked {} (for example: {})",
            progress.in_state(PromptState::Parked),
            prompt.error
        ));
    }
    let skipped = progress.in_state(PromptState::Skipped);
    if skipped > 0 {
        let prompts =
            shared.stores.prompts.prompts_in_state(job.id, PromptState::Skipped, None, BATCH_MAX).await?;
        let failed = prompts.into_iter().find(|prompt| !prompt.error.is_empty());
        let example = failed
            .map_or_else(String::new, |prompt| format!(" (one of them failed before: {})", prompt.error));
        words.push(format!("skipped: budget exhausted {skipped}{example}"));
    }
    let why = if words.is_empty() { "no row was asked".to_owned() } else { words.join(", ") };
    Ok(format!(
        "no rationale was accepted of {} prompts ({why}), and `training.objective = \"{}\"` needs some: look at the \
         ledger, change the task or the judging, or train with `standard`. Where the teacher was at fault and is repaired, \
         ask it again: {}",
        progress.total(),
        job.spec.training.objective,
        ask_again(job, &[])
    ))
}
