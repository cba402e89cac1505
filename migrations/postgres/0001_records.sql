-- The records of a cluster. Times are milliseconds since the Unix epoch, by this database's clock; money is in millionths
-- of the teacher's currency; states, verdicts and reasons are kept by the names that the domain gives them.
--
-- Locks are taken in this order, and of one table in order of its key, so that no two transactions wait for each other:
-- datasets, distillations, runs, prompts, completions. Whoever changes a job's prompts holds the job's row.

-- The one clock: every replica's leases are measured by it. Stable within a statement, so that an index can be searched
-- with it.
CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE sql STABLE PARALLEL SAFE
RETURN (extract(epoch FROM statement_timestamp()) * 1000)::bigint;

-- Sets of examples: staged, then committed and immutable.
CREATE TABLE datasets (
    id UUID PRIMARY KEY,
    request_id UUID NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('staged', 'committed')),
    rows BIGINT NOT NULL DEFAULT 0,
    rows_train BIGINT NOT NULL DEFAULT 0,
    rows_validation BIGINT NOT NULL DEFAULT 0,
    rows_test BIGINT NOT NULL DEFAULT 0,
    rows_labelled BIGINT NOT NULL DEFAULT 0,
    fingerprint TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL
);
-- Finding the newest committed dataset of a name or a fingerprint.
CREATE INDEX datasets_by_name ON datasets (name, created_at, id) WHERE state = 'committed';
CREATE INDEX datasets_by_fingerprint ON datasets (fingerprint, created_at, id) WHERE state = 'committed';
-- Pages of the list, newest first.
CREATE INDEX datasets_by_age ON datasets (created_at, id) WHERE state = 'committed';

-- Rows in order; the example itself is JSON, kept to the letter.
CREATE TABLE examples (
    dataset_id UUID NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    row_index BIGINT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'validation', 'test')),
    key TEXT,
    labelled BOOLEAN NOT NULL,
    answered BOOLEAN NOT NULL,
    example TEXT NOT NULL,
    PRIMARY KEY (dataset_id, row_index)
);
-- Pages of one split, and its counts without reading the examples.
CREATE INDEX examples_by_split ON examples (dataset_id, split, row_index) INCLUDE (labelled, answered);
-- A caller's id is unique in its dataset; by its digest, because it may be longer than an index entry.
CREATE UNIQUE INDEX examples_by_key ON examples (dataset_id, md5(key)) WHERE key IS NOT NULL;

-- Jobs. The budget stands here beside its counters (NULL is no limit): whoever reserves holds the row. The dataset of a
-- job that has ended may be gone.
CREATE TABLE distillations (
    id UUID PRIMARY KEY,
    request_id UUID NOT NULL UNIQUE,
    name TEXT NOT NULL,
    dataset_id UUID NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('queued', 'harvesting', 'training', 'evaluating', 'succeeded', 'failed', 'cancelled', 'paused')),
    reason TEXT NOT NULL DEFAULT '',
    resume_state TEXT CHECK (resume_state IN ('queued', 'harvesting', 'training', 'evaluating')),
    run_id UUID,
    model_id UUID,
    teacher_accuracy TEXT,
    ledger_fingerprint TEXT NOT NULL DEFAULT '',
    harvest_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    train_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    evaluate_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    calls BIGINT NOT NULL DEFAULT 0,
    cache_hits BIGINT NOT NULL DEFAULT 0,
    calls_paid_twice BIGINT NOT NULL DEFAULT 0,
    tokens_in BIGINT NOT NULL DEFAULT 0,
    tokens_out BIGINT NOT NULL DEFAULT 0,
    money_micros BIGINT NOT NULL DEFAULT 0,
    prompts_max BIGINT,
    tokens_max BIGINT,
    money_micros_max BIGINT,
    prompts_reserved BIGINT NOT NULL DEFAULT 0 CHECK (prompts_reserved >= 0),
    tokens_reserved BIGINT NOT NULL DEFAULT 0 CHECK (tokens_reserved >= 0),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) WITH (fillfactor = 70);
-- Pages of the list, newest first.
CREATE INDEX distillations_by_age ON distillations (created_at, id);
-- Claiming the jobs that somebody has to drive.
CREATE INDEX distillations_to_drive ON distillations (created_at, id) WHERE state IN ('queued', 'harvesting');
-- Whether a dataset can be deleted.
CREATE INDEX distillations_by_dataset ON distillations (dataset_id);

-- Who drives a job, and until when. Apart from the job, so that claiming neither waits for the workers that write its
-- budget, nor passes it over because of them.
CREATE TABLE drivers (
    distillation_id UUID PRIMARY KEY REFERENCES distillations (id) ON DELETE CASCADE,
    driver TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0
);

-- What happened to a job, counted from 1 without holes: whoever appends holds the job's row.
CREATE TABLE events (
    distillation_id UUID NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (distillation_id, sequence)
);

-- Completions by content address, shared by all jobs and never deleted: they were paid for.
CREATE TABLE completions (
    key BYTEA PRIMARY KEY CHECK (octet_length(key) = 32),
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length', 'content_filter')),
    model TEXT NOT NULL,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    money_micros BIGINT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    created_at BIGINT NOT NULL
);

-- Questions to the teacher and, once answered, their line of the ledger. `reserved` says that the job's counters hold
-- this prompt's reservation; `attempt` counts leases, and a write under an old one changes nothing.
CREATE TABLE prompts (
    id UUID PRIMARY KEY,
    distillation_id UUID NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    row_index BIGINT NOT NULL,
    sample INTEGER NOT NULL,
    hinted BOOLEAN NOT NULL,
    purpose TEXT NOT NULL CHECK (purpose IN ('train', 'evaluate')),
    key BYTEA NOT NULL CHECK (octet_length(key) = 32),
    tokens_reserved BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'answered', 'parked', 'skipped')),
    worker TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0,
    reserved BOOLEAN NOT NULL DEFAULT FALSE,
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
    weight DOUBLE PRECISION NOT NULL DEFAULT 1,
    -- Also the order of the ledger's pages.
    UNIQUE (distillation_id, row_index, sample, hinted, purpose)
);
-- Counting a job's prompts without reading their rationales, and finding the few in a rare state.
CREATE INDEX prompts_by_verdict ON prompts (distillation_id, state, purpose, verdict, reason);
-- Pages of what the work list may have lost. Answered prompts, the most by far, are not in it.
CREATE INDEX prompts_unfinished ON prompts (id) WHERE state IN ('pending', 'leased');
-- Whether somebody asks the same question.
CREATE INDEX prompts_by_key ON prompts (key) WHERE state = 'leased';

-- Prompts that wait to be published to the work list.
CREATE TABLE outbox (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prompt_id UUID NOT NULL UNIQUE REFERENCES prompts (id) ON DELETE CASCADE
);

-- Trainings. `fence` counts leases: a write under an old one changes nothing.
CREATE TABLE runs (
    id UUID PRIMARY KEY,
    distillation_id UUID NOT NULL UNIQUE REFERENCES distillations (id) ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'succeeded', 'failed', 'cancelled')),
    fence BIGINT NOT NULL DEFAULT 0,
    trainer TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0,
    step BIGINT NOT NULL DEFAULT 0,
    resume_path TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL
);
-- Leasing the oldest run that waits.
CREATE INDEX runs_waiting ON runs (created_at, id) WHERE state IN ('pending', 'leased');

-- Learning curves. A step that is trained again after a crash writes the same numbers again.
CREATE TABLE metrics (
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step BIGINT NOT NULL,
    name TEXT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (run_id, step, name)
);

-- The newest version of each name: publications of one name wait for each other here, and the version of a model that
-- was deleted is not given again.
CREATE TABLE versions (
    name TEXT PRIMARY KEY,
    newest BIGINT NOT NULL
);

-- Published students outlive their jobs.
CREATE TABLE models (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    distillation_id UUID NOT NULL,
    run_id UUID NOT NULL UNIQUE,
    path TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    parameters BIGINT NOT NULL,
    validation TEXT,
    test TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (name, version)
);
-- Pages of the list, newest first.
CREATE INDEX models_by_age ON models (created_at, id);

-- Registered base checkpoints.
CREATE TABLE base_models (
    name TEXT PRIMARY KEY,
    manifest_sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
