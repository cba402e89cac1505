//! Which completions train the student: a pure function of a row's ledger entries and the rules of a run.
//!
//! The ledger holds what was asked and answered. Verdicts follow from it: a run computes those of its own rules whenever
//! rows are read, and what a store keeps of the job's rules is a cache for lists and counts.

use crate::completion::Parsed;
use crate::example::Row;
use crate::label::{Comparison, same};
use crate::objective::{AcceptedRationale, TrainingExample};
use crate::records::{LedgerEntry, VerdictUpdate};
use crate::spec::{Judging, LabelSource};
use crate::state::{Purpose, Reason, Verdict};
use sha2::{Digest, Sha256};

/// The verdict of one sample by itself, for the live funnel: what it would be if it were alone.
pub fn provisional(
    judging: &Judging,
    metric: Comparison,
    gold: Option<&str>,
    parsed: &Parsed,
) -> (Verdict, Option<Reason>) {
    let reason = parsed.reason.or_else(|| match &parsed.label {
        None => Some(Reason::NoAnswer),
        Some(label) if judging.agree && !agrees(metric, gold, label) => Some(Reason::Disagrees),
        Some(_) => None,
    });
    match reason {
        None => (Verdict::Accepted, None),
        reason => (Verdict::Rejected, reason),
    }
}

/// The verdicts of one row, in the order of its entries. Entries that measure the teacher have none, and neither have
/// hinted ones where the rules ask for no hints: to such rules they were never asked.
///
/// What cannot be read keeps its own reason. With `vote`, the readable samples vote by label (equal by the metric): the
/// others are outvoted, and nothing is kept where no label has more votes than every other. With `agree`, what is left
/// must agree with gold. A hinted entry does not vote, and is accepted only where its label agrees with gold, whatever
/// the rules: its prompt contained the answer. With `vote`, each kept rationale weighs 1/kept; without, 1.
pub fn judge_row(
    judging: &Judging,
    metric: Comparison,
    gold: Option<&str>,
    entries: &[LedgerEntry],
) -> Vec<VerdictUpdate> {
    judged(judging, metric, gold, entries).into_iter().map(|(_, verdict)| verdict).collect()
}

/// What a student learns of a train row: the label, and the rationales that the rules accept, in order of sample.
pub fn learnt(judging: &Judging, metric: Comparison, row: Row, entries: &[LedgerEntry]) -> TrainingExample {
    let Row { index, mut example } = row;
    let rationales: Vec<AcceptedRationale> = judged(judging, metric, example.label.as_deref(), entries)
        .into_iter()
        .filter(|(_, verdict)| verdict.verdict == Verdict::Accepted)
        .map(|(entry, verdict)| AcceptedRationale {
            sample: entry.sample,
            text: entry.parsed.rationale.clone(),
            label: entry.parsed.label.clone().unwrap_or_default(),
            weight: verdict.weight,
        })
        .collect();
    // What came with the row is in the ledger.
    example.answers = Vec::new();
    let target = match judging.label {
        LabelSource::Gold => example.label.clone(),
        LabelSource::Teacher => {
            // Whoever learns the teacher's label does not see gold, not even where a row has it.
            example.label = None;
            rationales.first().map(|rationale| rationale.label.clone())
        }
    };
    TrainingExample { row: Row { index, example }, target, rationales }
}

/// A row that a student is measured on: its gold label, where there is one, and no rationale.
pub fn measured(row: Row) -> TrainingExample {
    let Row { index, mut example } = row;
    example.answers = Vec::new();
    TrainingExample { target: example.label.clone(), row: Row { index, example }, rationales: Vec::new() }
}

/// sha256 over the rationales that a run trains on, in order of row and sample. The bytes hashed are a form of their own:
/// no new field of a record changes a fingerprint.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// The next row.
    pub fn add(&mut self, example: &TrainingExample) {
        for rationale in &example.rationales {
            for text in [
                &example.row.index.to_string(),
                &rationale.sample.to_string(),
                &rationale.text,
                &rationale.label,
                &rationale.weight.to_string(),
            ] {
                self.0.update((text.len() as u64).to_le_bytes());
                self.0.update(text.as_bytes());
            }
        }
    }

    /// The fingerprint, in hex.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// The entries that the rules judge, each with its verdict.
fn judged<'a>(
    judging: &Judging,
    metric: Comparison,
    gold: Option<&str>,
    entries: &'a [LedgerEntry],
) -> Vec<(&'a LedgerEntry, VerdictUpdate)> {
    let entries: Vec<&LedgerEntry> = entries
        .iter()
        .filter(|entry| entry.purpose == Purpose::Train && (judging.hint.is_on() || !entry.hinted))
        .collect();
    let ballot = if judging.vote { count(metric, &entries) } else { Ballot::Uncounted };
    let mut verdicts: Vec<VerdictUpdate> =
        entries.iter().map(|entry| judge_entry(judging, metric, gold, &ballot, entry)).collect();
    let kept = verdicts.iter().filter(|verdict| verdict.verdict == Verdict::Accepted).count();
    if judging.vote {
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.verdict == Verdict::Accepted) {
            verdict.weight = 1.0 / kept.max(1) as f64;
        }
    }
    entries.into_iter().zip(verdicts).collect()
}

/// What the votes of a row say.
enum Ballot<'a> {
    /// The rules ask for no vote.
    Uncounted,
    /// This label has more votes than any other.
    Won(&'a str),
    /// None has.
    Undecided,
}

fn count<'a>(metric: Comparison, entries: &[&'a LedgerEntry]) -> Ballot<'a> {
    let mut votes: Vec<(&str, usize)> = Vec::new();
    for label in entries.iter().filter(|entry| !entry.hinted).filter_map(|entry| readable(entry)) {
        match votes.iter_mut().find(|(known, _)| same(metric, known, label)) {
            Some((_, count)) => *count += 1,
            None => votes.push((label, 1)),
        }
    }
    let most = votes.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let mut leaders = votes.iter().filter(|(_, count)| *count == most);
    match (leaders.next(), leaders.next()) {
        (Some((label, _)), None) => Ballot::Won(label),
        _ => Ballot::Undecided,
    }
}

fn judge_entry(
    judging: &Judging,
    metric: Comparison,
    gold: Option<&str>,
    ballot: &Ballot<'_>,
    entry: &LedgerEntry,
) -> VerdictUpdate {
    let alone = if entry.hinted { Judging { agree: true, ..*judging } } else { *judging };
    let lost = match (readable(entry), ballot) {
        (Some(_), Ballot::Undecided) if !entry.hinted => Some(Reason::NoMajority),
        (Some(label), Ballot::Won(winner)) if !entry.hinted && !same(metric, winner, label) => {
            Some(Reason::Outvoted)
        }
        _ => None,
    };
    let (verdict, reason) = match lost {
        Some(reason) => (Verdict::Rejected, Some(reason)),
        None => provisional(&alone, metric, gold, &entry.parsed),
    };
    VerdictUpdate { prompt: entry.prompt, verdict, reason, weight: 1.0 }
}

/// The label of an entry that could train, by itself.
fn readable(entry: &LedgerEntry) -> Option<&str> {
    if entry.parsed.reason.is_some() { None } else { entry.parsed.label.as_deref() }
}

/// Without gold nothing can be shown to agree.
fn agrees(metric: Comparison, gold: Option<&str>, label: &str) -> bool {
    gold.is_some_and(|gold| same(metric, gold, label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::Example;
    use crate::ids::{DistillationId, PromptId};
    use crate::spec::Hint;
    use proptest::prelude::*;

    const PLAIN: Judging = Judging {
        label: LabelSource::Gold,
        agree: false,
        hint: Hint::Off,
        vote: false,
        vote_confidence: 1.0,
    };
    const AGREE: Judging = Judging { agree: true, ..PLAIN };
    const HINT: Judging = Judging { agree: true, hint: Hint::After, ..PLAIN };
    const VOTE: Judging = Judging { vote: true, ..PLAIN };
    const BOTH: Judging = Judging { agree: true, vote: true, ..PLAIN };

    /// A label; `!` before it for a hinted entry, and a bare `-` for one without an answer.
    fn entry(sample: u32, text: &str) -> LedgerEntry {
        let (hinted, text) = text.strip_prefix('!').map_or((false, text), |label| (true, label));
        let absent = text == "-";
        LedgerEntry {
            distillation: DistillationId::generate(),
            prompt: PromptId::generate(),
            row: 0,
            sample,
            hinted,
            purpose: Purpose::Train,
            parsed: Parsed {
                rationale: if absent { String::new() } else { "Because.".into() },
                label: (!absent).then(|| text.to_owned()),
                reason: absent.then_some(Reason::NoAnswer),
            },
            verdict: Verdict::Unjudged,
            reason: None,
            weight: 1.0,
            completion: String::new(),
            model: String::new(),
        }
    }

    fn entries(labels: &[&str]) -> Vec<LedgerEntry> {
        labels.iter().zip(0..).map(|(label, sample)| entry(sample, label)).collect()
    }

    /// Entries and their fates; `None` is accepted.
    fn check(judging: Judging, gold: Option<&str>, row: &[(&str, Option<Reason>)], weight: f64) {
        let labels: Vec<&str> = row.iter().map(|(label, _)| *label).collect();
        let entries = entries(&labels);
        let updates = judge_row(&judging, Comparison::Equation, gold, &entries);
        assert_eq!(updates.len(), row.len());
        for ((update, entry), (label, reason)) in updates.iter().zip(&entries).zip(row) {
            let verdict = if reason.is_none() { Verdict::Accepted } else { Verdict::Rejected };
            assert_eq!(
                (update.verdict, update.reason),
                (verdict, *reason),
                "{label} of {labels:?}, {judging:?}"
            );
            assert_eq!(update.prompt, entry.prompt);
            assert_eq!(update.weight, if reason.is_none() { weight } else { 1.0 }, "{label} of {labels:?}");
        }
    }

    const NO_ANSWER: Option<Reason> = Some(Reason::NoAnswer);
    const DISAGREES: Option<Reason> = Some(Reason::Disagrees);
    const OUTVOTED: Option<Reason> = Some(Reason::Outvoted);
    const NO_MAJORITY: Option<Reason> = Some(Reason::NoMajority);

    #[test]
    fn agreement_is_by_the_metric() {
        check(AGREE, Some("42"), &[("84 / 2", None), ("84 - 2", DISAGREES), ("-", NO_ANSWER)], 1.0);
        check(AGREE, None, &[("42", DISAGREES)], 1.0);
        check(PLAIN, Some("42"), &[("84 / 2", None), ("84 - 2", None), ("-", NO_ANSWER)], 1.0);
        check(PLAIN, None, &[("7", None)], 1.0);
        check(PLAIN, None, &[], 1.0);
    }

    #[test]
    fn votes_are_counted_by_label() {
        check(VOTE, None, &[("84 / 2", None), ("7", OUTVOTED), ("42", None)], 0.5);
        check(
            VOTE,
            None,
            &[("6", None), ("7", OUTVOTED), ("2 * 3", None), ("-", NO_ANSWER), ("9 - 3", None)],
            1.0 / 3.0,
        );
        check(VOTE, None, &[("6", NO_MAJORITY), ("7", NO_MAJORITY)], 1.0);
        check(
            VOTE,
            None,
            &[("6", NO_MAJORITY), ("7", NO_MAJORITY), ("6", NO_MAJORITY), ("7", NO_MAJORITY)],
            1.0,
        );
        check(VOTE, None, &[("6", None), ("-", NO_ANSWER)], 1.0);
        check(VOTE, None, &[("-", NO_ANSWER), ("-", NO_ANSWER)], 1.0);
        check(BOTH, Some("7"), &[("6", DISAGREES), ("7", OUTVOTED), ("6", DISAGREES)], 1.0);
        check(BOTH, Some("6"), &[("6", None), ("7", OUTVOTED), ("6", None)], 0.5);
    }

    #[test]
    fn a_hinted_entry_agrees_or_is_rejected() {
        check(HINT, Some("6"), &[("7", DISAGREES), ("!6", None)], 1.0);
        check(HINT, Some("6"), &[("7", DISAGREES), ("!7", DISAGREES)], 1.0);
        check(HINT, Some("6"), &[("6", None), ("!-", NO_ANSWER)], 1.0);
        let both = Judging { vote: true, ..HINT };
        check(both, Some("6"), &[("7", DISAGREES), ("7", DISAGREES), ("!6", None)], 1.0);
        // It has no vote: without it, the two tie.
        check(both, Some("6"), &[("7", NO_MAJORITY), ("8", NO_MAJORITY), ("!8", DISAGREES)], 1.0);
    }

    #[test]
    fn alone_a_sample_is_judged_by_agreement_only() {
        let alone = |judging: Judging, gold: Option<&str>, text: &str| {
            provisional(&judging, Comparison::Equation, gold, &entry(0, text).parsed)
        };
        assert_eq!(alone(BOTH, Some("6"), "2 * 3"), (Verdict::Accepted, None));
        assert_eq!(alone(BOTH, Some("6"), "7"), (Verdict::Rejected, DISAGREES));
        assert_eq!(alone(VOTE, None, "7"), (Verdict::Accepted, None));
        assert_eq!(alone(PLAIN, None, "-"), (Verdict::Rejected, NO_ANSWER));
    }

    /// The sample numbers that rules accept of a row, their weight, and the label to learn.
    fn check_learnt(
        judging: Judging,
        gold: Option<&str>,
        row: &[LedgerEntry],
        samples: &[u32],
        target: Option<&str>,
    ) {
        let example = Example { label: gold.map(str::to_owned), ..Example::default() };
        let learnt = learnt(&judging, Comparison::Equation, Row { index: 3, example }, row);
        let accepted: Vec<u32> = learnt.rationales.iter().map(|rationale| rationale.sample).collect();
        assert_eq!((accepted.as_slice(), learnt.target.as_deref()), (samples, target), "{judging:?}");
        // Gold is not even there where the teacher's label is learnt.
        let seen = if judging.label == LabelSource::Teacher { None } else { gold };
        assert_eq!(learnt.row.example.label.as_deref(), seen, "{judging:?}");
    }

    #[test]
    fn what_is_learnt_follows_from_the_ledger_and_the_rules_alone() {
        let mut row = entries(&["7", "6", "2 * 3", "!6"]);
        // What another set of rules made of them does not matter.
        row[0].verdict = Verdict::Accepted;
        row[1].verdict = Verdict::Rejected;
        let teacher = Judging { label: LabelSource::Teacher, ..VOTE };
        check_learnt(PLAIN, Some("6"), &row, &[0, 1, 2], Some("6"));
        check_learnt(AGREE, Some("6"), &row, &[1, 2], Some("6"));
        check_learnt(HINT, Some("6"), &row, &[1, 2, 3], Some("6"));
        check_learnt(teacher, Some("9"), &row, &[1, 2], Some("6"));
        check_learnt(teacher, Some("9"), &row[..2], &[], None);
        check_learnt(AGREE, None, &row, &[], None);
        row[1].purpose = Purpose::Evaluate;
        check_learnt(PLAIN, Some("6"), &row, &[0, 2], Some("6"));
    }

    #[test]
    fn a_fingerprint_is_that_of_what_is_accepted() {
        let fingerprint = |judging: Judging, labels: &[&str]| {
            let example = Example { label: Some("6".into()), ..Example::default() };
            let mut fingerprint = Fingerprint::default();
            fingerprint.add(&learnt(
                &judging,
                Comparison::Equation,
                Row { index: 3, example },
                &entries(labels),
            ));
            fingerprint.finish()
        };
        assert_eq!(fingerprint(AGREE, &["6", "7"]), fingerprint(AGREE, &["6", "8"]));
        assert_ne!(fingerprint(AGREE, &["6", "7"]), fingerprint(PLAIN, &["6", "7"]));
        assert_ne!(fingerprint(PLAIN, &["6", "6"]), fingerprint(VOTE, &["6", "6"]), "weights count");
        assert_eq!(
            fingerprint(AGREE, &["6", "7"]),
            "fee7642804e707b8040c334750e03566ad86cb7ca63bfb4ffc791ed244fd60c5",
            "the form that version 0.1.0 wrote"
        );
    }

    proptest! {
        #[test]
        fn weights_of_what_a_vote_keeps_sum_to_one(labels in proptest::collection::vec("[-1-3]", 0..9)) {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let updates = judge_row(&VOTE, Comparison::Text, None, &entries(&labels));
            let kept: Vec<f64> = updates
                .iter()
                .filter(|update| update.verdict == Verdict::Accepted)
                .map(|update| update.weight)
                .collect();
            prop_assert!(kept.is_empty() || (kept.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}
