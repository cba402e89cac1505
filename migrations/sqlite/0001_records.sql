-- The records of one machine. Times are milliseconds since the Unix epoch; ids are UUIDs as 16 bytes; money is in
-- millionths of the teacher's currency; states, verdicts and reasons are kept by the names that the domain gives them.

-- Sets of examples: staged, then committed and immutable.
CREATE TABLE datasets (
    id BLOB PRIMARY KEY NOT NULL,
    request_id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('staged', 'committed')),
    rows INTEGER NOT NULL DEFAULT 0,
    rows_train INTEGER NOT NULL DEFAULT 0,
    rows_validation INTEGER NOT NULL DEFAULT 0,
    rows_test INTEGER NOT NULL DEFAULT 0,
    rows_labelled INTEGER NOT NULL DEFAULT 0,
    fingerprint TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;
-- Finding the newest committed dataset of a name or a fingerprint.
CREATE INDEX datasets_by_name ON datasets (name, state, created_at, id);
CREATE INDEX datasets_by_fingerprint ON datasets (fingerprint, state, created_at, id);
-- Pages of the list, newest first.
CREATE INDEX datasets_by_age ON datasets (state, created_at, id);

-- Rows in order; the example itself is JSON.
CREATE TABLE examples (
    dataset_id BLOB NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    row_index INTEGER NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'validation', 'test')),
    key TEXT,
    labelled INTEGER NOT NULL CHECK (labelled IN (0, 1)),
    answered INTEGER NOT NULL CHECK (answered IN (0, 1)),
    example TEXT NOT NULL,
    PRIMARY KEY (dataset_id, row_index)
) STRICT, WITHOUT ROWID;
-- Pages of one split, and its counts without reading the examples.
CREATE INDEX examples_by_split ON examples (dataset_id, split, row_index, labelled, answered);
-- A caller's id is unique in its dataset.
CREATE UNIQUE INDEX examples_by_key ON examples (dataset_id, key) WHERE key IS NOT NULL;

-- Jobs. The budget's counters stand here, so that reserving is one guarded update.
CREATE TABLE distillations (
    id BLOB PRIMARY KEY NOT NULL,
    request_id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    dataset_id BLOB NOT NULL, -- an ended job outlives its dataset
    spec TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('queued', 'harvesting', 'training', 'evaluating', 'succeeded', 'failed', 'cancelled', 'paused')),
    reason TEXT NOT NULL DEFAULT '',
    resume_state TEXT CHECK (resume_state IN ('queued', 'harvesting', 'training', 'evaluating')),
    run_id BLOB,
    model_id BLOB,
    teacher_accuracy TEXT,
    ledger_fingerprint TEXT NOT NULL DEFAULT '',
    harvest_seconds REAL NOT NULL DEFAULT 0,
    train_seconds REAL NOT NULL DEFAULT 0,
    evaluate_seconds REAL NOT NULL DEFAULT 0,
    driver TEXT NOT NULL DEFAULT '',
    driver_until INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    cache_hits INTEGER NOT NULL DEFAULT 0,
    calls_paid_twice INTEGER NOT NULL DEFAULT 0,
    tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    money_micros INTEGER NOT NULL DEFAULT 0,
    prompts_reserved INTEGER NOT NULL DEFAULT 0,
    tokens_reserved INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
-- Claiming the jobs that somebody has to drive.
CREATE INDEX distillations_by_state ON distillations (state, driver_until);
-- Pages of the list, newest first.
CREATE INDEX distillations_by_age ON distillations (created_at, id);
-- Whether a dataset can be deleted.
CREATE INDEX distillations_by_dataset ON distillations (dataset_id);

-- What happened to a job, counted from 1 without holes.
CREATE TABLE events (
    distillation_id BLOB NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (distillation_id, sequence)
) STRICT, WITHOUT ROWID;

-- Completions by content address, shared by all jobs and never deleted: they were paid for.
CREATE TABLE completions (
    key BLOB PRIMARY KEY NOT NULL,
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length', 'content_filter')),
    model TEXT NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    money_micros INTEGER NOT NULL,
    seconds REAL NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Questions to the teacher and, once answered, their line of the ledger.
CREATE TABLE prompts (
    id BLOB PRIMARY KEY NOT NULL,
    distillation_id BLOB NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    row_index INTEGER NOT NULL,
    sample INTEGER NOT NULL,
    hinted INTEGER NOT NULL CHECK (hinted IN (0, 1)),
    purpose TEXT NOT NULL CHECK (purpose IN ('train', 'evaluate')),
    key BLOB NOT NULL,
    tokens_reserved INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'answered', 'parked', 'skipped')),
    worker TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved IN (0, 1)),
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    rationale TEXT NOT NULL DEFAULT '',
    label TEXT,
    parse_reason TEXT CHECK (parse_reason IN
        ('no_answer', 'truncated', 'refused', 'empty_rationale', 'label_not_in_set', 'disagrees', 'outvoted',
        'no_majority')),
    verdict TEXT CHECK (verdict IN ('unjudged', 'accepted', 'rejected')),
    reason TEXT CHECK (reason IN
        ('no_answer', 'truncated', 'refused', 'empty_rationale', 'label_not_in_set', 'disagrees', 'outvoted',
        'no_majority')),
    weight REAL NOT NULL DEFAULT 1,
    UNIQUE (distillation_id, row_index, sample, hinted, purpose)
) STRICT;
-- Pages of a job's prompts in one state: of the answered ones, its ledger.
CREATE INDEX prompts_by_state ON prompts (distillation_id, state, row_index, sample, hinted, purpose);
-- Counting a job's prompts without reading their rationales.
CREATE INDEX prompts_by_verdict ON prompts (distillation_id, state, purpose, verdict, reason);
-- Pages of what the work list may have lost. Answered prompts, the most by far, are not in it.
CREATE INDEX prompts_unfinished ON prompts (id) WHERE state IN ('pending', 'leased');
-- One live lease for a key.
CREATE INDEX prompts_by_key ON prompts (key) WHERE state = 'leased';

-- Prompts that wait to be published to the work list.
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    prompt_id BLOB NOT NULL UNIQUE REFERENCES prompts (id) ON DELETE CASCADE
) STRICT;

-- Trainings. `fence` counts leases: a write under an old one changes nothing.
CREATE TABLE runs (
    id BLOB PRIMARY KEY NOT NULL,
    distillation_id BLOB NOT NULL UNIQUE REFERENCES distillations (id) ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'succeeded', 'failed', 'cancelled')),
    fence INTEGER NOT NULL DEFAULT 0,
    trainer TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    resume_path TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;
-- Leasing the oldest run that waits.
CREATE INDEX runs_by_state ON runs (state, created_at);

-- Learning curves. A step that is trained again after a crash writes the same numbers again.
CREATE TABLE metrics (
    run_id BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run_id, step, name)
) STRICT, WITHOUT ROWID;

-- Published students outlive their jobs.
CREATE TABLE models (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    distillation_id BLOB NOT NULL,
    run_id BLOB NOT NULL UNIQUE,
    path TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    validation TEXT,
    test TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (name, version)
) STRICT;
-- Pages of the list, newest first.
CREATE INDEX models_by_age ON models (created_at, id);

-- Registered base checkpoints.
CREATE TABLE base_models (
    name TEXT PRIMARY KEY NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
