//! What a job may spend on its teacher. The unit is a call: one HTTP request, reserved at the most it can cost before it is
//! sent, so that no answer, crash or replica takes a job over its budget.
//!
//! A reserved call ends in one of the ways of [`CallEnd`]. One whose end nobody reports, because its worker was killed or
//! lost its lease, is in doubt: it stays reserved at its bound, which is as good as spent, until its answer turns up.

use crate::spec::Budget;

/// The most that one call can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallBound {
    /// Tokens, in and out together.
    pub tokens: u64,
    /// Money, in millionths of the profile's currency.
    pub money_micros: u64,
}

/// What a call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub tokens_in: u64,
    /// Tokens of the completion, thoughts included.
    pub tokens_out: u64,
    /// Money, in millionths of the profile's currency.
    pub money_micros: u64,
}

impl Usage {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens_in: self.tokens_in.saturating_add(other.tokens_in),
            tokens_out: self.tokens_out.saturating_add(other.tokens_out),
            money_micros: self.money_micros.saturating_add(other.money_micros),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The server answered, whatever the answer is worth: the call and its usage are spent.
    Charged(Usage),
    /// The server failed (a status such as 500): the call is spent, and nothing else.
    Failed,
    /// The server refused to take the call (a status such as 429 or 401), or was never reached: nothing is spent.
    Refused,
    /// The connection ended before the answer did: spent at its bound.
    InDoubt,
}

/// A quantity of calls, tokens and money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Calls.
    pub calls: u64,
    /// Tokens, in and out together.
    pub tokens: u64,
    /// Money, in millionths of the profile's currency.
    pub money_micros: u64,
}

impl Amount {
    /// One call at its bound.
    pub fn of(bound: CallBound) -> Self {
        Self { calls: 1, tokens: bound.tokens, money_micros: bound.money_micros }
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            tokens: self.tokens.saturating_add(other.tokens),
            money_micros: self.money_micros.saturating_add(other.money_micros),
        }
    }

    /// What is left when `other` is taken away; never less than nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(other.calls),
            tokens: self.tokens.saturating_sub(other.tokens),
            money_micros: self.money_micros.saturating_sub(other.money_micros),
        }
    }

    /// Whether a budget allows as much.
    pub fn fits(self, budget: &Budget) -> bool {
        let within = |used: u64, limit: Option<u64>| limit.is_none_or(|limit| used <= limit);
        within(self.calls, budget.prompts)
            && within(self.tokens, budget.tokens)
            && within(self.money_micros, budget.money_micros)
    }
}

/// Whether a budget has room for one more call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It has.
    Free,
    /// Not now: calls that are being made hold what is left, and may give some of it back.
    Later,
    /// It is used up.
    Exhausted,
}

/// Whether `budget` has room for one more call of `bound`: `spent` is what ended calls cost, `in_doubt` the bounds of
/// calls whose end nobody will report, `open` those of calls that are being made.
pub fn room(budget: &Budget, spent: Amount, in_doubt: Amount, open: Amount, bound: CallBound) -> Room {
    let least = spent.plus(in_doubt).plus(Amount::of(bound));
    if least.plus(open).fits(budget) {
        Room::Free
    } else if least.fits(budget) {
        Room::Later
    } else {
        Room::Exhausted
    }
}

/// What a job may spend, has spent, and has reserved: what a store holds while it decides.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The limits.
    pub budget: Budget,
    /// What ended calls cost.
    pub spent: Amount,
    /// The bounds of calls whose end nobody will report.
    pub in_doubt: Amount,
    /// The bounds of calls that are being made.
    pub open: Amount,
}

impl Account {
    /// Reserves a call where there is room for it.
    pub fn reserve(&mut self, bound: CallBound) -> Room {
        let room = room(&self.budget, self.spent, self.in_doubt, self.open, bound);
        if room == Room::Free {
            self.open = self.open.plus(Amount::of(bound));
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(calls: u64, tokens: u64, money_micros: u64) -> Amount {
        Amount { calls, tokens, money_micros }
    }

    #[test]
    fn a_call_fits_where_its_bound_fits() {
        let calls = |limit| Budget { prompts: Some(limit), ..Budget::default() };
        let tokens = |limit| Budget { tokens: Some(limit), ..Budget::default() };
        let money = |limit| Budget { money_micros: Some(limit), ..Budget::default() };
        let bound = CallBound { tokens: 100, money_micros: 7 };
        let nothing = Amount::default();
        for (budget, spent, in_doubt, open, expected) in [
            (Budget::default(), amount(u64::MAX, u64::MAX, u64::MAX), nothing, nothing, Room::Free),
            (calls(3), amount(2, 0, 0), nothing, nothing, Room::Free),
            (calls(3), amount(3, 0, 0), nothing, nothing, Room::Exhausted),
            (calls(3), amount(1, 0, 0), nothing, amount(2, 0, 0), Room::Later),
            (calls(3), amount(1, 0, 0), amount(2, 0, 0), nothing, Room::Exhausted),
            (calls(3), amount(1, 0, 0), amount(1, 0, 0), amount(1, 0, 0), Room::Later),
            (tokens(100), nothing, nothing, nothing, Room::Free),
            (tokens(99), nothing, nothing, nothing, Room::Exhausted),
            (tokens(199), nothing, nothing, amount(1, 100, 0), Room::Later),
            (money(7), nothing, nothing, nothing, Room::Free),
            (money(6), nothing, nothing, nothing, Room::Exhausted),
            (money(13), amount(1, 0, 7), nothing, nothing, Room::Exhausted),
            (money(20), amount(1, 0, 7), nothing, amount(1, 0, 7), Room::Later),
        ] {
            assert_eq!(
                room(&budget, spent, in_doubt, open, bound),
                expected,
                "{budget:?} {spent:?} {open:?}"
            );
        }
    }
}
