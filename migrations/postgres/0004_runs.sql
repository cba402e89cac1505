-- Many runs over one ledger. A job has one final run, which carries out the job's own specification and publishes its
-- model; probes and cells of studies train other students over the same answers.
ALTER TABLE runs
    DROP CONSTRAINT runs_distillation_id_key,
    ADD COLUMN request_id UUID UNIQUE, -- of the call that created it; none for a final run
    ADD COLUMN purpose TEXT NOT NULL DEFAULT 'final' CHECK (purpose IN ('final', 'probe', 'cell')),
    ADD COLUMN study TEXT NOT NULL DEFAULT '',
    ADD COLUMN cell TEXT NOT NULL DEFAULT '',
    ADD COLUMN spec TEXT, -- what it carries out; none for the job's own
    ADD COLUMN rows_millionths BIGINT NOT NULL DEFAULT 1000000 CHECK (rows_millionths BETWEEN 1 AND 1000000),
    ADD COLUMN rows_seed BIGINT NOT NULL DEFAULT 0, -- the bits of an unsigned number; a final run takes its job's seed
    ADD COLUMN ledger_fingerprint TEXT NOT NULL DEFAULT '',
    ADD COLUMN path TEXT NOT NULL DEFAULT '', -- of the published checkpoint; empty until there is one
    ADD COLUMN manifest_sha256 TEXT NOT NULL DEFAULT '',
    ADD COLUMN parameters BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN validation TEXT,
    ADD COLUMN test TEXT,
    ADD COLUMN train_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    ADD COLUMN evaluate_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    ADD CHECK ((spec IS NULL) = (purpose = 'final'));

UPDATE runs SET ledger_fingerprint = job.ledger_fingerprint, train_seconds = job.train_seconds,
    evaluate_seconds = job.evaluate_seconds
FROM distillations AS job WHERE job.id = runs.distillation_id;

UPDATE runs SET path = models.path, manifest_sha256 = models.manifest_sha256, parameters = models.parameters,
    validation = models.validation, test = models.test
FROM models WHERE models.run_id = runs.id;

-- One final run for a job.
CREATE UNIQUE INDEX runs_final ON runs (distillation_id) WHERE purpose = 'final';
-- Pages of a job's runs.
CREATE INDEX runs_by_job ON runs (distillation_id, created_at, id);

-- A job is shown with its final run.
CREATE OR REPLACE VIEW watch.jobs AS
SELECT
    job.id AS job,
    job.name,
    job.state,
    stages.stage,
    watch.unquoted(job.reason) AS reason,
    coalesce(specs.spec #>> '{teacher,source,profile}', specs.spec #>> '{teacher,source}', 'none') AS teacher,
    specs.spec #>> '{training,objective}' AS objective,
    watch.instant(job.created_at) AS created_at,
    watch.instant(job.updated_at) AS updated_at,
    nullif(split_part(job.traceparent, '-', 2), '') AS trace,
    prompts.total AS prompts_total,
    prompts.done AS prompts_done,
    prompts.pending AS prompts_pending,
    prompts.leased AS prompts_leased,
    prompts.answered AS prompts_answered,
    prompts.parked AS prompts_parked,
    prompts.skipped AS prompts_skipped,
    prompts.accepted AS rationales_accepted,
    prompts.rejected AS rationales_rejected,
    run.id AS run,
    run.trainer,
    run.step,
    steps.steps,
    CASE stages.stage
        WHEN 'queued' THEN 0
        WHEN 'harvesting' THEN prompts.done / nullif(prompts.total, 0)::double precision
        WHEN 'training' THEN least(run.step / nullif(steps.steps, 0)::double precision, 1)
        WHEN 'evaluating' THEN 1
        WHEN 'succeeded' THEN 1
    END AS progress,
    prompts.done / nullif(harvest.seconds, 0) AS prompts_per_second,
    pace.examples_per_second / nullif(steps.batch_examples, 0) AS steps_per_second,
    CASE job.state
        WHEN 'harvesting' THEN (prompts.total - prompts.done) / nullif(prompts.done / nullif(harvest.seconds, 0), 0)
        WHEN 'training' THEN
            greatest(steps.steps - run.step, 0) / nullif(pace.examples_per_second / nullif(steps.batch_examples, 0), 0)
    END AS seconds_left,
    job.calls,
    job.cache_hits,
    job.calls_paid_twice,
    job.tokens_in,
    job.tokens_out,
    job.money_micros / 1e6::double precision AS money,
    coalesce(harvest.seconds, job.harvest_seconds) AS harvest_seconds,
    job.train_seconds,
    job.evaluate_seconds,
    model.name || '@' || model.version AS model,
    model.accuracy,
    model.accuracy_low,
    model.accuracy_high
FROM distillations AS job
CROSS JOIN LATERAL (
    -- What stopped shows how far it had come.
    SELECT CASE WHEN job.state IN ('paused', 'failed') THEN coalesce(job.resume_state, job.state) ELSE job.state END AS stage
) AS stages
CROSS JOIN LATERAL (SELECT watch.parsed(job.spec) AS spec) AS specs
CROSS JOIN LATERAL (
    SELECT (specs.spec #>> '{training,steps}')::bigint AS steps,
        (specs.spec #>> '{training,batch_examples}')::bigint AS batch_examples
) AS steps
LEFT JOIN LATERAL (
    SELECT count(*) AS total,
        count(*) FILTER (WHERE prompts.state IN ('answered', 'parked', 'skipped')) AS done,
        count(*) FILTER (WHERE prompts.state = 'pending') AS pending,
        count(*) FILTER (WHERE prompts.state = 'leased') AS leased,
        count(*) FILTER (WHERE prompts.state = 'answered') AS answered,
        count(*) FILTER (WHERE prompts.state = 'parked') AS parked,
        count(*) FILTER (WHERE prompts.state = 'skipped') AS skipped,
        count(*) FILTER (WHERE prompts.purpose = 'train' AND prompts.verdict = 'accepted') AS accepted,
        count(*) FILTER (WHERE prompts.purpose = 'train' AND prompts.verdict = 'rejected') AS rejected
    FROM prompts WHERE prompts.distillation_id = job.id
) AS prompts ON true
LEFT JOIN LATERAL (
    -- Pauses left out: a rate over them would promise too little.
    SELECT sum(changes.until - changes.at) / 1000.0::double precision AS seconds
    FROM (
        SELECT events.at, lead(events.at, 1, now_ms()) OVER (ORDER BY events.sequence) AS until,
            watch.parsed(events.kind) ->> 'to' AS state
        FROM events
        WHERE events.distillation_id = job.id AND watch.parsed(events.kind) ->> 'kind' = 'state_changed'
            AND job.state = 'harvesting'
    ) AS changes WHERE changes.state = 'harvesting'
) AS harvest ON true
LEFT JOIN runs AS run ON run.id = job.run_id
LEFT JOIN LATERAL (
    SELECT max(newest.value) AS examples_per_second
    FROM (
        SELECT metrics.value FROM metrics
        WHERE metrics.run_id = run.id AND metrics.name = 'examples_per_second' AND job.state = 'training'
        ORDER BY metrics.step DESC LIMIT 1
    ) AS newest
) AS pace ON true
LEFT JOIN LATERAL (
    SELECT max(models.name) AS name, max(models.version) AS version,
        max((tests.test ->> 'correct')::double precision / nullif((tests.test ->> 'rows')::double precision, 0)) AS accuracy,
        max((tests.test ->> 'low')::double precision) AS accuracy_low,
        max((tests.test ->> 'high')::double precision) AS accuracy_high
    FROM models CROSS JOIN LATERAL (SELECT watch.parsed(models.test) AS test) AS tests
    WHERE models.id = job.model_id
) AS model ON true;

CREATE OR REPLACE VIEW watch.runs AS
SELECT run.distillation_id AS job, run.id AS run, run.state, run.trainer, run.fence AS leases, run.step,
    watch.unquoted(run.reason) AS reason, watch.instant(run.created_at) AS created_at,
    run.state = 'pending' OR (run.state = 'leased' AND run.lease_until <= now_ms()) AS waits,
    run.purpose, nullif(run.study, '') AS study, nullif(run.cell, '') AS cell,
    run.rows_millionths / 1e6::double precision AS rows_fraction,
    (results.test ->> 'correct')::double precision / nullif((results.test ->> 'rows')::double precision, 0) AS accuracy,
    (results.test ->> 'low')::double precision AS accuracy_low,
    (results.test ->> 'high')::double precision AS accuracy_high
FROM runs AS run CROSS JOIN LATERAL (SELECT watch.parsed(run.test) AS test) AS results;
