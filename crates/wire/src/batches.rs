//! Batches of a job.
//!
//! The messages about one job do not repeat its id: a reader gives the id that it asked with.

use crate::convert::{Checked, id, timestamp, timestamp_of};
use crate::enums::Named;
use crate::v1;
use domain::ids::DistillationId;
use domain::records::Batch;

/// A batch of a job.
///
/// # Errors
/// An id is not one, or the state is unknown.
pub fn batch(distillation: DistillationId, message: v1::Batch) -> Checked<Batch> {
    Ok(Batch {
        id: id("id", &message.id)?,
        distillation,
        profile: message.profile,
        state: Named::required("state", message.state)?,
        submission: message.submission,
        name: message.name,
        lines: message.lines,
        note: message.note,
        created_at: timestamp_of(message.created_at),
        in_state_ms: message.in_state_ms,
    })
}

impl From<Batch> for v1::Batch {
    fn from(batch: Batch) -> Self {
        Self {
            id: batch.id.to_string(),
            profile: batch.profile,
            state: batch.state.number(),
            submission: batch.submission,
            name: batch.name,
            lines: batch.lines,
            note: batch.note,
            created_at: Some(timestamp(batch.created_at)),
            in_state_ms: batch.in_state_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use domain::ids::BatchId;
    use domain::state::BatchState;

    #[test]
    fn batches_survive_the_wire() {
        let job = DistillationId::generate();
        let sent = Batch {
            id: BatchId::generate(),
            distillation: job,
            profile: 1,
            state: BatchState::Submitted,
            submission: 2,
            name: "batch_3".into(),
            lines: 4,
            note: "expired".into(),
            created_at: Timestamp(1_700_000_000_123),
            in_state_ms: 5,
        };
        assert_eq!(batch(job, v1::Batch::from(sent.clone())), Ok(sent));
        assert_eq!(batch(job, v1::Batch::default()).unwrap_err()[0].field, "id");
    }
}
