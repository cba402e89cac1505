//! Which completions train the student: a pure function of a row's ledger entries and the job's rules.

use crate::completion::Parsed;
use crate::label::{Comparison, same};
use crate::records::{LedgerEntry, VerdictUpdate};
use crate::spec::{Judging, LabelSource};
use crate::state::{Reason, Verdict};

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

/// The verdicts of all entries of one row, in their order.
///
/// What cannot be read keeps its own reason. With `vote`, the readable samples vote by label (equal by the metric): the
/// others are outvoted, and nothing is kept where no label has more votes than every other. With `agree`, what is left
/// must agree with gold. A hinted entry does not vote, and is accepted only where its label agrees with gold, whatever
/// the rules: it was told the answer. With `vote`, each kept rationale weighs 1/kept; without, 1.
pub fn judge_row(
    judging: &Judging,
    metric: Comparison,
    gold: Option<&str>,
    entries: &[LedgerEntry],
) -> Vec<VerdictUpdate> {
    let ballot = if judging.vote { count(metric, entries) } else { Ballot::Uncounted };
    let mut updates: Vec<VerdictUpdate> =
        entries.iter().map(|entry| judge_entry(judging, metric, gold, &ballot, entry)).collect();
    let kept = updates.iter().filter(|update| update.verdict == Verdict::Accepted).count();
    if judging.vote {
        for update in updates.iter_mut().filter(|update| update.verdict == Verdict::Accepted) {
            update.weight = 1.0 / kept.max(1) as f64;
        }
    }
    updates
}

/// Whether a row whose unhinted samples are all answered wants a hinted one: `hint` is on, gold is known, and no sample
/// agrees. A row that was never answered, or was asked with a hint before, wants none.
pub fn wants_hint(
    judging: &Judging,
    metric: Comparison,
    gold: Option<&str>,
    entries: &[LedgerEntry],
) -> bool {
    judging.hint
        && gold.is_some()
        && !entries.is_empty()
        && !entries.iter().any(|entry| entry.hinted)
        && !entries.iter().filter_map(readable).any(|label| agrees(metric, gold, label))
}

/// The label that the student learns of a row whose entries are judged: the dataset's, or that of the first accepted
/// sample; `None` where there is none.
pub fn target<'a>(judging: &Judging, gold: Option<&'a str>, entries: &'a [LedgerEntry]) -> Option<&'a str> {
    match judging.label {
        LabelSource::Gold => gold,
        LabelSource::Teacher => entries
            .iter()
            .filter(|entry| entry.verdict == Verdict::Accepted)
            .min_by_key(|entry| entry.sample)
            .and_then(|entry| entry.parsed.label.as_deref()),
    }
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

fn count(metric: Comparison, entries: &[LedgerEntry]) -> Ballot<'_> {
    let mut votes: Vec<(&str, usize)> = Vec::new();
    for label in entries.iter().filter(|entry| !entry.hinted).filter_map(readable) {
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
    use crate::ids::{DistillationId, PromptId};
    use crate::state::Purpose;
    use proptest::prelude::*;

    const PLAIN: Judging = Judging { agree: false, hint: false, vote: false, label: LabelSource::Gold };
    const AGREE: Judging = Judging { agree: true, ..PLAIN };
    const HINT: Judging = Judging { agree: true, hint: true, ..PLAIN };
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
        check(PLAIN, Some("6"), &[("7", None), ("!7", DISAGREES), ("!-", NO_ANSWER)], 1.0);
        let both = Judging { vote: true, ..HINT };
        check(both, Some("6"), &[("7", DISAGREES), ("7", DISAGREES), ("!6", None)], 1.0);
        // It has no vote: without it, the two tie.
        check(both, Some("6"), &[("7", NO_MAJORITY), ("8", NO_MAJORITY), ("!8", DISAGREES)], 1.0);
    }

    #[test]
    fn a_hint_is_wanted_where_no_sample_agrees() {
        let wants = |judging: Judging, gold: Option<&str>, labels: &[&str]| {
            wants_hint(&judging, Comparison::Equation, gold, &entries(labels))
        };
        assert!(wants(HINT, Some("6"), &["7", "-"]));
        assert!(wants(HINT, Some("6"), &["-"]));
        assert!(!wants(HINT, Some("6"), &["7", "2 * 3"]));
        assert!(!wants(HINT, Some("6"), &["7", "!7"]));
        assert!(!wants(HINT, Some("6"), &[]));
        assert!(!wants(HINT, None, &["7"]));
        assert!(!wants(AGREE, Some("6"), &["7"]));
        // The right label without a rationale teaches nothing.
        let mut bare = entries(&["6"]);
        bare[0].parsed.reason = Some(Reason::EmptyRationale);
        assert!(wants_hint(&HINT, Comparison::Equation, Some("6"), &bare));
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

    #[test]
    fn the_target_has_its_source() {
        let mut row = entries(&["7", "6", "8"]);
        row[1].verdict = Verdict::Accepted;
        row[2].verdict = Verdict::Accepted;
        let teacher = Judging { label: LabelSource::Teacher, ..PLAIN };
        assert_eq!(target(&teacher, Some("9"), &row), Some("6"));
        assert_eq!(target(&PLAIN, Some("9"), &row), Some("9"));
        assert_eq!(target(&PLAIN, None, &row), None);
        assert_eq!(target(&teacher, Some("9"), &row[..1]), None);
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
