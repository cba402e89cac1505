//! The ledger: which entries are meant, what forgetting came to, and verdicts under other rules.

use crate::convert::{Checked, under};
use crate::enums::Named;
use crate::v1;
use domain::Violation;
use domain::ports::{ForgetOutcome, LedgerFilter};
use domain::rejudge::{Fate, Rejudged};
use domain::state::{Reason, Verdict};

/// Most reasons of one filter: more than there are.
const REASONS_MAX: usize = 64;

/// A filter as the fields of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerFields {
    /// See [`LedgerFilter::verdict`].
    pub verdict: i32,
    /// See [`LedgerFilter::reasons`].
    pub reasons: Vec<i32>,
    /// See [`LedgerFilter::model`].
    pub model: String,
    /// The rows.
    pub rows: Option<v1::RowRange>,
}

impl TryFrom<LedgerFields> for LedgerFilter {
    type Error = Vec<Violation>;

    fn try_from(fields: LedgerFields) -> Checked<Self> {
        if fields.reasons.len() > REASONS_MAX {
            return Err(vec![Violation::new("reasons", format!("has more than {REASONS_MAX} entries"))]);
        }
        let read = |(place, number): (usize, &i32)| Reason::required(&format!("reasons[{place}]"), *number);
        let (from, end) = fields.rows.map_or((0, None), |rows| (rows.from, rows.end));
        if end.is_some_and(|end| end <= from) {
            return Err(vec![Violation::new("rows.end", "must be greater than `rows.from`")]);
        }
        Ok(Self {
            verdict: Verdict::read("verdict", fields.verdict)?,
            reasons: fields.reasons.iter().enumerate().map(read).collect::<Checked<_>>()?,
            model: (!fields.model.is_empty()).then_some(fields.model),
            after_row: from.checked_sub(1),
            before_row: end,
        })
    }
}

impl From<LedgerFilter> for LedgerFields {
    fn from(filter: LedgerFilter) -> Self {
        let from = filter.after_row.map_or(0, |row| row.saturating_add(1));
        let rows = v1::RowRange { from, end: filter.before_row };
        Self {
            verdict: filter.verdict.map_or(0, Named::number),
            reasons: filter.reasons.into_iter().map(Named::number).collect(),
            model: filter.model.unwrap_or_default(),
            rows: (rows != v1::RowRange::default()).then_some(rows),
        }
    }
}

impl From<ForgetOutcome> for v1::ForgetRationalesResponse {
    fn from(outcome: ForgetOutcome) -> Self {
        let ForgetOutcome { forgotten, asked_again, harvests } = outcome;
        Self { forgotten, asked_again, harvests }
    }
}

impl From<v1::ForgetRationalesResponse> for ForgetOutcome {
    fn from(message: v1::ForgetRationalesResponse) -> Self {
        let v1::ForgetRationalesResponse { forgotten, asked_again, harvests } = message;
        Self { forgotten, asked_again, harvests }
    }
}

fn numbers(fate: Fate) -> (i32, i32) {
    fate.map_or((0, 0), |(verdict, reason)| (verdict.number(), reason.map_or(0, Named::number)))
}

fn fate(which: &str, verdict: i32, reason: i32) -> Checked<Fate> {
    let verdict = Verdict::read(&format!("verdict_{which}"), verdict)?;
    let reason = Reason::read(&format!("reason_{which}"), reason)?;
    Ok(verdict.map(|verdict| (verdict, reason)))
}

/// Counts as a message; the last one says that it is `done`.
pub fn rejudged_message(rejudged: &Rejudged, done: bool) -> v1::JudgeRationalesResponse {
    let judged = rejudged.counts().map(|((before, after), entries)| {
        let (verdict_before, reason_before) = numbers(before);
        let (verdict_after, reason_after) = numbers(after);
        v1::JudgedRationales { verdict_before, reason_before, verdict_after, reason_after, entries }
    });
    v1::JudgeRationalesResponse { rows: rejudged.rows(), judged: judged.collect(), done }
}

impl TryFrom<v1::JudgeRationalesResponse> for Rejudged {
    type Error = Vec<Violation>;

    fn try_from(message: v1::JudgeRationalesResponse) -> Checked<Self> {
        let counts = crate::convert::each("judged", message.judged, |judged| {
            let before = fate("before", judged.verdict_before, judged.reason_before)?;
            let after = fate("after", judged.verdict_after, judged.reason_after)?;
            Ok(((before, after), judged.entries))
        });
        Ok(Self::of(message.rows, under("response", counts)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_survive_the_wire() {
        for filter in [
            LedgerFilter::default(),
            LedgerFilter {
                verdict: Some(Verdict::Rejected),
                reasons: vec![Reason::NoAnswer, Reason::Disagrees],
                model: Some("small-1".to_owned()),
                after_row: Some(2),
                before_row: Some(9),
            },
            LedgerFilter { after_row: Some(0), ..LedgerFilter::default() },
            LedgerFilter { before_row: Some(1), ..LedgerFilter::default() },
        ] {
            assert_eq!(LedgerFilter::try_from(LedgerFields::from(filter.clone())), Ok(filter));
        }
        let rows = |from, end| Some(v1::RowRange { from, end });
        for (verdict, reasons, rows, field) in [
            (99, vec![], None, "verdict"),
            (0, vec![1, 99], None, "reasons[1]"),
            (0, vec![0], None, "reasons[0]"),
            (0, vec![1; 65], None, "reasons"),
            (0, vec![], rows(3, Some(3)), "rows.end"),
            (0, vec![], rows(0, Some(0)), "rows.end"),
        ] {
            let fields = LedgerFields { verdict, reasons, model: String::new(), rows };
            assert_eq!(LedgerFilter::try_from(fields).unwrap_err()[0].field, field);
        }
    }

    #[test]
    fn outcomes_survive_the_wire() {
        let outcome = ForgetOutcome { forgotten: 1, asked_again: 2, harvests: true };
        assert_eq!(ForgetOutcome::from(v1::ForgetRationalesResponse::from(outcome)), outcome);
        let accepted = Some((Verdict::Accepted, None));
        let outvoted = Some((Verdict::Rejected, Some(Reason::Outvoted)));
        let rejudged = Rejudged::of(7, [((accepted, outvoted), 3), ((None, accepted), 4)]);
        assert_eq!(Rejudged::try_from(rejudged_message(&rejudged, true)), Ok(rejudged));
    }
}
