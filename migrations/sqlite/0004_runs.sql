-- Many runs over one ledger. A job has one final run, which carries out the job's own specification and publishes its
-- model; probes and cells of studies train other students over the same answers.
--
-- Both tables are written anew: SQLite cannot drop a UNIQUE constraint, and dropping `runs` alone would take its metrics
-- with it.
CREATE TABLE runs_new (
    id BLOB PRIMARY KEY NOT NULL,
    distillation_id BLOB NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    request_id BLOB UNIQUE, -- of the call that created it; none for a final run
    purpose TEXT NOT NULL DEFAULT 'final' CHECK (purpose IN ('final', 'probe', 'cell')),
    study TEXT NOT NULL DEFAULT '',
    cell TEXT NOT NULL DEFAULT '',
    spec TEXT CHECK ((spec IS NULL) = (purpose = 'final')), -- what it carries out; none for the job's own
    rows_millionths INTEGER NOT NULL DEFAULT 1000000 CHECK (rows_millionths BETWEEN 1 AND 1000000),
    rows_seed INTEGER NOT NULL DEFAULT 0, -- the bits of an unsigned number; a final run takes its job's seed
    ledger_fingerprint TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'succeeded', 'failed', 'cancelled')),
    fence INTEGER NOT NULL DEFAULT 0,
    trainer TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    resume_path TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    path TEXT NOT NULL DEFAULT '', -- of the published checkpoint; empty until there is one
    manifest_sha256 TEXT NOT NULL DEFAULT '',
    parameters INTEGER NOT NULL DEFAULT 0,
    validation TEXT,
    test TEXT,
    train_seconds REAL NOT NULL DEFAULT 0,
    evaluate_seconds REAL NOT NULL DEFAULT 0
) STRICT;

INSERT INTO runs_new (id, distillation_id, ledger_fingerprint, state, fence, trainer, lease_until, step, resume_path,
    reason, created_at, path, manifest_sha256, parameters, validation, test, train_seconds, evaluate_seconds)
SELECT runs.id, runs.distillation_id, job.ledger_fingerprint, runs.state, runs.fence, runs.trainer, runs.lease_until,
    runs.step, runs.resume_path, runs.reason, runs.created_at, coalesce(models.path, ''),
    coalesce(models.manifest_sha256, ''), coalesce(models.parameters, 0), models.validation, models.test,
    job.train_seconds, job.evaluate_seconds
FROM runs JOIN distillations AS job ON job.id = runs.distillation_id LEFT JOIN models ON models.run_id = runs.id;

CREATE TABLE metrics_new (
    run_id BLOB NOT NULL REFERENCES runs_new (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run_id, step, name)
) STRICT, WITHOUT ROWID;

INSERT INTO metrics_new (run_id, step, name, value) SELECT run_id, step, name, value FROM metrics;

DROP TABLE metrics;
DROP TABLE runs;
ALTER TABLE runs_new RENAME TO runs;
ALTER TABLE metrics_new RENAME TO metrics;

-- Leasing the oldest run that waits.
CREATE INDEX runs_by_state ON runs (state, created_at, id);
-- Pages of a job's runs.
CREATE INDEX runs_by_job ON runs (distillation_id, created_at, id);
-- One final run for a job.
CREATE UNIQUE INDEX runs_final ON runs (distillation_id) WHERE purpose = 'final';
