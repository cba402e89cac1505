//! A ledger judged under other rules, next to its job's own: what would change, and why. No teacher is asked, and nothing
//! is written.

use crate::judge::judge_row;
use crate::label::Comparison;
use crate::records::{LedgerEntry, VerdictUpdate};
use crate::spec::Judging;
use crate::state::{Purpose, Reason, Verdict};
use std::collections::{BTreeMap, HashMap};

/// What rules make of an entry; `None` where they do not judge such entries (hinted ones, under rules without hints).
pub type Fate = Option<(Verdict, Option<Reason>)>;

/// Entries by their fates under two sets of rules, counted row by row: its size does not depend on the ledger's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejudged {
    rows: u64,
    counts: BTreeMap<(Fate, Fate), u64>,
}

impl Rejudged {
    /// Counts the next row: its entries under the rules `before` and `after`. Entries that measure the teacher have no
    /// verdict, and are not counted.
    pub fn add(
        &mut self,
        before: &Judging,
        after: &Judging,
        metric: Comparison,
        gold: Option<&str>,
        entries: &[LedgerEntry],
    ) {
        let fates = |rules: &Judging| -> HashMap<_, _> {
            let fate = |update: VerdictUpdate| (update.prompt, (update.verdict, update.reason));
            judge_row(rules, metric, gold, entries).into_iter().map(fate).collect()
        };
        let (before, after) = (fates(before), fates(after));
        self.rows = self.rows.saturating_add(1);
        for entry in entries.iter().filter(|entry| entry.purpose == Purpose::Train) {
            let fates = (before.get(&entry.prompt).copied(), after.get(&entry.prompt).copied());
            self.count(fates, 1);
        }
    }

    /// The same counts, read back.
    pub fn of(rows: u64, counts: impl IntoIterator<Item = ((Fate, Fate), u64)>) -> Self {
        let mut rejudged = Self { rows, counts: BTreeMap::new() };
        for (fates, entries) in counts {
            rejudged.count(fates, entries);
        }
        rejudged
    }

    fn count(&mut self, fates: (Fate, Fate), entries: u64) {
        let count = self.counts.entry(fates).or_default();
        *count = count.saturating_add(entries);
    }

    /// Rows that were judged.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many entries had one fate and have another (or the same), in order.
    pub fn counts(&self) -> impl Iterator<Item = ((Fate, Fate), u64)> {
        self.counts.iter().map(|(fates, entries)| (*fates, *entries))
    }

    /// Entries whose fate changes.
    pub fn changed(&self) -> u64 {
        self.counts().filter(|((before, after), _)| before != after).map(|(_, entries)| entries).sum()
    }

    /// Each fate with its entries before and after, in order.
    pub fn totals(&self) -> BTreeMap<Fate, (u64, u64)> {
        let mut totals: BTreeMap<Fate, (u64, u64)> = BTreeMap::new();
        for ((before, after), entries) in self.counts() {
            totals.entry(before).or_default().0 += entries;
            totals.entry(after).or_default().1 += entries;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::Parsed;
    use crate::ids::{DistillationId, PromptId};
    use crate::spec::JudgingDraft;

    fn rules(agree: bool, vote: bool) -> Judging {
        let draft = JudgingDraft { agree: Some(agree), vote: Some(vote), ..JudgingDraft::default() };
        let context = crate::spec::Context { is_scratch: false, has_teacher: true, tokens_max: 1 };
        draft.fill(context)
    }

    fn entry(sample: u32, label: Option<&str>, hinted: bool, purpose: Purpose) -> LedgerEntry {
        LedgerEntry {
            distillation: DistillationId::generate(),
            prompt: PromptId::generate(),
            row: 0,
            sample,
            hinted,
            purpose,
            parsed: Parsed {
                rationale: "Because.".into(),
                label: label.map(str::to_owned),
                reason: label.is_none().then_some(Reason::NoAnswer),
            },
            verdict: Verdict::Unjudged,
            reason: None,
            weight: 1.0,
            completion: String::new(),
            model: String::new(),
        }
    }

    #[test]
    fn entries_are_counted_by_what_becomes_of_them() {
        let mut rejudged = Rejudged::default();
        let row = [
            entry(0, Some("6"), false, Purpose::Train),
            entry(1, Some("6"), false, Purpose::Train),
            entry(2, Some("7"), false, Purpose::Train),
            entry(3, None, false, Purpose::Train),
            entry(4, Some("7"), true, Purpose::Train),
            entry(0, Some("7"), false, Purpose::Evaluate),
        ];
        for _ in 0..2 {
            rejudged.add(&rules(true, false), &rules(false, true), Comparison::Equation, Some("7"), &row);
        }
        let accepted = Some((Verdict::Accepted, None));
        let rejected = |reason| Some((Verdict::Rejected, Some(reason)));
        let expected = [
            ((None, None), 2),
            ((accepted, rejected(Reason::Outvoted)), 2),
            ((rejected(Reason::NoAnswer), rejected(Reason::NoAnswer)), 2),
            ((rejected(Reason::Disagrees), accepted), 4),
        ];
        assert_eq!(rejudged.counts().collect::<Vec<_>>(), expected);
        assert_eq!((rejudged.rows(), rejudged.changed()), (2, 6));
        let totals = rejudged.totals();
        assert_eq!(totals.get(&accepted), Some(&(2, 4)));
        assert_eq!(totals.get(&rejected(Reason::Disagrees)), Some(&(4, 0)));
        assert_eq!(Rejudged::of(2, rejudged.counts()), rejudged);
    }
}
