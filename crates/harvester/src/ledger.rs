//! A job's ledger, read row by row next to the rows themselves.

use crate::shared::Shared;
use domain::ids::DistillationId;
use domain::ports::{BATCH_MAX, LedgerFilter, StoreResult};
use domain::records::LedgerEntry;
use std::collections::VecDeque;

/// The ledger of one job, read in order and a page at a time.
pub(crate) struct Ledger<'a> {
    shared: &'a Shared,
    job: DistillationId,
    /// Whole rows, in order.
    page: VecDeque<LedgerEntry>,
    filter: LedgerFilter,
    ended: bool,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(shared: &'a Shared, job: DistillationId) -> Self {
        Self { shared, job, page: VecDeque::new(), filter: LedgerFilter::default(), ended: false }
    }

    /// The ledger from that row on.
    pub(crate) fn starting(shared: &'a Shared, job: DistillationId, from: u64) -> Self {
        let filter = LedgerFilter { after_row: from.checked_sub(1), ..LedgerFilter::default() };
        Self { filter, ..Self::new(shared, job) }
    }

    /// The first row from `from` on that has entries. Rows are asked for in order.
    pub(crate) async fn next_row(&mut self, from: u64) -> StoreResult<Option<u64>> {
        loop {
            while self.page.front().is_some_and(|entry| entry.row < from) {
                self.page.pop_front();
            }
            if let Some(entry) = self.page.front() {
                return Ok(Some(entry.row));
            }
            if self.ended {
                return Ok(None);
            }
            self.filter.after_row = self.filter.after_row.max(from.checked_sub(1));
            self.page = self.shared.stores.prompts.ledger(self.job, &self.filter, BATCH_MAX).await?.into();
            match self.page.back() {
                Some(last) => self.filter.after_row = Some(last.row),
                None => self.ended = true,
            }
        }
    }

    /// The entries of a row, by sample. Rows are asked for in order.
    pub(crate) async fn of(&mut self, row: u64) -> StoreResult<Vec<LedgerEntry>> {
        if self.next_row(row).await? != Some(row) {
            return Ok(Vec::new());
        }
        let count = self.page.iter().take_while(|entry| entry.row == row).count();
        Ok(self.page.drain(..count).collect())
    }
}
