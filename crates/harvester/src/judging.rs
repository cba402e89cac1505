//! The end of a harvest: every row judged whole, the teacher measured, the ledger's fingerprint taken.

use crate::job::Job;
use crate::{HarvestError, Shared};
use domain::example::Row;
use domain::metric::Accuracy;
use domain::ports::{BATCH_MAX, LedgerFilter};
use domain::records::LedgerEntry;
use domain::state::{PromptState, Purpose, Verdict};
use domain::{judge, label};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// What the whole ledger came to.
pub(crate) struct Judged {
    /// sha256 (hex) over the accepted rationales in order.
    pub(crate) fingerprint: String,
    /// How many there are.
    pub(crate) accepted: u64,
    /// The teacher on the test rows, where it was asked.
    pub(crate) teacher: Option<Accuracy>,
}

/// Judges every row and writes the verdicts. Doing it again gives the same.
pub(crate) async fn judge(shared: &Shared, job: &Job) -> Result<Judged, HarvestError> {
    let mut hasher = Sha256::new();
    let mut updates = Vec::new();
    let (mut accepted, mut rows, mut correct, mut parsed) = (0, 0, 0, 0);
    each_judged_row(shared, job, |row, entries| {
        let gold = row.example.label.as_deref();
        let (train, evaluate): (Vec<_>, Vec<_>) =
            entries.iter().cloned().partition(|entry| entry.purpose == Purpose::Train);
        let verdicts = judge::judge_row(&job.spec.judging, job.spec.task.metric, gold, &train);
        for (entry, verdict) in train.iter().zip(&verdicts) {
            if verdict.verdict == Verdict::Accepted {
                accepted += 1;
                digest(&mut hasher, entry, verdict.weight);
            }
        }
        updates.extend(verdicts);
        if let (Some(entry), Some(gold)) = (evaluate.first(), gold) {
            rows += 1;
            parsed += u64::from(entry.parsed.label.is_some());
            let says = entry.parsed.label.as_deref();
            correct += u64::from(says.is_some_and(|says| label::same(job.spec.task.metric, says, gold)));
        }
        Ok(())
    })
    .await?;
    while !updates.is_empty() {
        let rest = updates.split_off(updates.len().min(BATCH_MAX));
        shared.stores.prompts.record_verdicts(job.id, updates).await?;
        updates = rest;
    }
    let teacher = (rows > 0).then(|| Accuracy::measure(rows, correct, parsed));
    Ok(Judged { fingerprint: hex::encode(hasher.finalize()), accepted, teacher })
}

fn digest(hasher: &mut Sha256, entry: &LedgerEntry, weight: f64) {
    let label = entry.parsed.label.as_deref().unwrap_or_default();
    for text in [
        &entry.row.to_string(),
        &entry.sample.to_string(),
        &entry.parsed.rationale,
        label,
        &weight.to_string(),
    ] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
}

/// Calls `visit` with every row that has ledger entries, in order, and its entries by sample.
pub(crate) async fn each_judged_row(
    shared: &Shared,
    job: &Job,
    mut visit: impl FnMut(&Row, &[LedgerEntry]) -> Result<(), HarvestError>,
) -> Result<(), HarvestError> {
    let mut filter = LedgerFilter::default();
    loop {
        let page = shared.stores.prompts.ledger(job.id, &filter, BATCH_MAX).await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(()) };
        let (mut from, last) = (first.row, last.row);
        filter.after_row = Some(last);
        let mut page = VecDeque::from(page);
        while from <= last {
            let rows = shared.stores.datasets.rows(job.dataset, None, from, BATCH_MAX).await?;
            let Some(end) = rows.last() else { break };
            from = end.index + 1;
            for row in rows {
                let count = page.iter().take_while(|entry| entry.row == row.index).count();
                let entries: Vec<LedgerEntry> = page.drain(..count).collect();
                if !entries.is_empty() {
                    visit(&row, &entries)?;
                }
            }
        }
    }
}

/// Why nothing was accepted, in words that say what to do.
pub(crate) async fn explain_nothing(shared: &Shared, job: &Job) -> Result<String, HarvestError> {
    let progress = shared.stores.prompts.harvest_progress(job.id).await?;
    let mut words: Vec<String> = domain::state::Reason::ALL
        .iter()
        .zip(progress.reasons)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let parked = shared.stores.prompts.prompts_in_state(job.id, PromptState::Parked, None, 1).await?;
    if let Some(prompt) = parked.first() {
        words.push(format!("parked {} (such as: {})", progress.in_state(PromptState::Parked), prompt.error));
    }
    let skipped = progress.in_state(PromptState::Skipped);
    if skipped > 0 {
        words.push(format!("skipped for want of budget {skipped}"));
    }
    let why = if words.is_empty() { "no row was asked".to_owned() } else { words.join(", ") };
    Ok(format!(
        "no rationale was accepted of {} prompts ({why}), and `training.objective = \"{}\"` needs some: look at the \
         ledger, change the task or the judging, or train with `standard`",
        progress.total(),
        job.spec.training.objective
    ))
}
