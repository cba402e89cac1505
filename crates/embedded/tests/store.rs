//! The suite of the port of records, on SQLite.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use async_trait::async_trait;
use conformance::harness::{Store, StoreHarness};
use embedded::SqliteStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// 2026-01-01, in milliseconds: a clock that stands still unless a case moves it, so that most things happen in the same
/// millisecond.
const EPOCH_MS: i64 = 1_767_225_600_000;

struct Sqlite {
    store: Arc<SqliteStore>,
    now: Arc<AtomicI64>,
    _folder: TempDir,
}

impl Sqlite {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(EPOCH_MS));
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || clock.load(Ordering::SeqCst));
        let store = SqliteStore::open_with_clock(folder.path(), clock).await.unwrap();
        Self { store: Arc::new(store), now, _folder: folder }
    }
}

#[async_trait]
impl StoreHarness for Sqlite {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

conformance::store_suite!(Sqlite::open);
