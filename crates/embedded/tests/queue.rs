//! The suite of the port of work, in memory.

use conformance::harness::{CAPACITY, QueueHarness, VISIBILITY};
use domain::Queue;
use embedded::MemoryQueue;
use std::sync::Arc;

struct InProcessQueue(Arc<MemoryQueue>);

impl InProcessQueue {
    async fn open() -> Self {
        Self(Arc::new(MemoryQueue::new(CAPACITY, VISIBILITY)))
    }
}

impl QueueHarness for InProcessQueue {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.0) as Arc<dyn Queue>
    }
}

conformance::queue_suite!(InProcessQueue::open);
