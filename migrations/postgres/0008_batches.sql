-- Prompts that are asked together, through the batch API of a provider. A batch goes on from its state in whatever process
-- claims it; its lines are calls, reserved before it is submitted and there until their ends are known.
CREATE TABLE batches (
    id UUID PRIMARY KEY,
    distillation_id UUID NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    -- Which of the job's profiles is asked, by its place.
    profile INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('preparing', 'ready', 'submitting', 'submitted', 'ended')),
    -- How often it was made ready again: what is submitted is marked with it.
    submission INTEGER NOT NULL DEFAULT 0,
    -- How the provider calls it.
    name TEXT NOT NULL DEFAULT '',
    lines BIGINT NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    -- Nobody works on it before.
    next_at BIGINT NOT NULL,
    worker TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0
);
-- A job prepares one batch a profile at a time.
CREATE UNIQUE INDEX batches_preparing ON batches (distillation_id, profile) WHERE state = 'preparing';
CREATE INDEX batches_open ON batches (next_at) WHERE state IN ('ready', 'submitting', 'submitted');
CREATE INDEX batches_by_job ON batches (distillation_id);

-- A line of a batch; a call by itself has none.
ALTER TABLE calls ADD COLUMN batch_id UUID REFERENCES batches (id) ON DELETE CASCADE;
CREATE INDEX calls_by_batch ON calls (batch_id, id) WHERE batch_id IS NOT NULL;

-- Its prompts are asked in batches: no worker asks one by itself.
ALTER TABLE distillations ADD COLUMN batched BOOLEAN NOT NULL DEFAULT FALSE;
