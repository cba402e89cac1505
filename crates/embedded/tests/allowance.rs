//! The suite of the port of rate limits, in memory.

use conformance::allowance::AllowanceHarness;
use domain::Allowance;
use embedded::MemoryAllowance;
use std::sync::Arc;

struct Memory(Arc<MemoryAllowance>);

impl Memory {
    async fn open() -> Self {
        Self(Arc::new(MemoryAllowance::default()))
    }
}

impl AllowanceHarness for Memory {
    fn allowance(&self) -> Arc<dyn Allowance> {
        Arc::clone(&self.0) as Arc<dyn Allowance>
    }
}

conformance::allowance_suite!(Memory::open);
