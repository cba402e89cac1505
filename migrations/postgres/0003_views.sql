-- What dashboards and scalers read: views in a schema of their own, so that a reader needs no right to a table, and no
-- table is bound by what a dashboard shows. There are states, counts, times and reasons in them, and never the text of a
-- row, a prompt, a rationale or an answer.
--
-- Times are instants here, money is in units of the teacher's currency, shares are between 0 and 1. Whoever reads only
-- some columns of a view pays only for those: what costs something is joined so that it can be left out.

CREATE SCHEMA watch;
COMMENT ON SCHEMA watch IS
    'For dashboards and scalers: states, counts, times and reasons; never the text of a row, a prompt or an answer.';

CREATE FUNCTION watch.instant(milliseconds BIGINT) RETURNS TIMESTAMPTZ LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_timestamp(milliseconds / 1000.0::double precision);
COMMENT ON FUNCTION watch.instant IS 'Milliseconds since the Unix epoch as an instant.';

-- JSON can spell the character NUL and this database cannot hold it: one odd job must not blind the view of all others.
CREATE FUNCTION watch.parsed(written TEXT) RETURNS JSON LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN replace(written, '\u0000', '\ufffd')::json;
COMMENT ON FUNCTION watch.parsed IS 'JSON that the program wrote; a NUL in it is read as U+FFFD.';

-- What a teacher said stands at the end, after a colon and between backquotes, and it may repeat a prompt.
CREATE FUNCTION watch.unquoted(failure TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(failure, ': `.*', '');
COMMENT ON FUNCTION watch.unquoted IS 'A failure without the words of others that it quotes.';

CREATE VIEW watch.jobs AS
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
LEFT JOIN runs AS run ON run.distillation_id = job.id
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
COMMENT ON VIEW watch.jobs IS
    'A job a line: state and reason, how far its present stage has come and how long it will take, what it has asked, spent
and made. Read the newest ones (created_at): prompts are counted for each line.';
COMMENT ON COLUMN watch.jobs.stage IS 'The state; of a job that is paused or has failed, the one that it stopped in.';
COMMENT ON COLUMN watch.jobs.trace IS 'The id of the trace that the job was submitted in.';
COMMENT ON COLUMN watch.jobs.progress IS 'Share of the present stage that is done.';
COMMENT ON COLUMN watch.jobs.prompts_per_second IS 'Over the whole time of a harvest that goes on, pauses left out.';
COMMENT ON COLUMN watch.jobs.seconds_left IS 'Of the present stage, at its present rate; unknown before the first answer.';

CREATE VIEW watch.verdicts AS
SELECT prompts.distillation_id AS job, prompts.purpose, prompts.state, prompts.verdict, prompts.reason,
    count(*) AS prompts
FROM prompts
GROUP BY prompts.distillation_id, prompts.purpose, prompts.state, prompts.verdict, prompts.reason;
COMMENT ON VIEW watch.verdicts IS
    'How many prompts of a job stand where, and what became of their answers. Ask for one job.';

CREATE VIEW watch.spend AS
SELECT job.id AS job, job.name, accounts.resource, accounts.used, accounts.reserved, accounts.allowed,
    accounts.used / nullif(accounts.allowed, 0) AS share
FROM distillations AS job
CROSS JOIN LATERAL (VALUES
    ('prompts', job.calls::double precision, job.prompts_reserved::double precision, job.prompts_max::double precision),
    ('tokens', (job.tokens_in + job.tokens_out)::double precision, job.tokens_reserved::double precision,
        job.tokens_max::double precision),
    ('money', job.money_micros / 1e6::double precision, 0, job.money_micros_max / 1e6::double precision)
) AS accounts (resource, used, reserved, allowed);
COMMENT ON VIEW watch.spend IS
    'What a job has spent of its budget: prompts, tokens, money. Without a limit, allowed and share are NULL.';

CREATE VIEW watch.curves AS
SELECT run.distillation_id AS job, metrics.run_id AS run, metrics.step, metrics.name, metrics.value
FROM metrics JOIN runs AS run ON run.id = metrics.run_id;
COMMENT ON VIEW watch.curves IS
    'Learning curves: loss_label and loss_rationale (nats), validation_accuracy, learning_rate, gradient_norm,
examples_per_second, by optimiser step.';

CREATE VIEW watch.runs AS
SELECT run.distillation_id AS job, run.id AS run, run.state, run.trainer, run.fence AS leases, run.step,
    watch.unquoted(run.reason) AS reason, watch.instant(run.created_at) AS created_at,
    run.state = 'pending' OR (run.state = 'leased' AND run.lease_until <= now_ms()) AS waits
FROM runs AS run;
COMMENT ON VIEW watch.runs IS 'Trainings, who holds them, and whether they wait for a trainer.';

CREATE VIEW watch.models AS
SELECT model.id, model.name, model.version, model.name || '@' || model.version AS model, model.distillation_id AS job,
    watch.instant(model.created_at) AS created_at, model.parameters,
    (results.test ->> 'rows')::bigint AS rows,
    (results.test ->> 'correct')::double precision / nullif((results.test ->> 'rows')::double precision, 0) AS accuracy,
    (results.test ->> 'low')::double precision AS accuracy_low,
    (results.test ->> 'high')::double precision AS accuracy_high,
    (results.validation ->> 'correct')::double precision
        / nullif((results.validation ->> 'rows')::double precision, 0) AS validation_accuracy,
    (results.teacher ->> 'correct')::double precision
        / nullif((results.teacher ->> 'rows')::double precision, 0) AS teacher_accuracy,
    (results.teacher ->> 'low')::double precision AS teacher_accuracy_low,
    (results.teacher ->> 'high')::double precision AS teacher_accuracy_high
FROM models AS model
LEFT JOIN distillations AS job ON job.id = model.distillation_id
CROSS JOIN LATERAL (
    SELECT watch.parsed(model.test) AS test, watch.parsed(model.validation) AS validation,
        watch.parsed(job.teacher_accuracy) AS teacher
) AS results;
COMMENT ON VIEW watch.models IS
    'Published students with their accuracy on the test rows, its 95% bootstrap interval, and their teacher''s.';

CREATE VIEW watch.events AS
SELECT event.distillation_id AS job, event.sequence, watch.instant(event.at) AS at, kinds.kind ->> 'kind' AS kind,
    kinds.kind ->> 'from' AS state_from, kinds.kind ->> 'to' AS state_to,
    watch.unquoted(kinds.kind ->> 'reason') AS reason,
    (kinds.kind ->> 'step')::bigint AS step, (kinds.kind ->> 'steps')::bigint AS steps, kinds.kind ->> 'split' AS split,
    (kinds.kind #>> '{accuracy,correct}')::double precision
        / nullif((kinds.kind #>> '{accuracy,rows}')::double precision, 0) AS accuracy,
    (kinds.kind #>> '{accuracy,low}')::double precision AS accuracy_low,
    (kinds.kind #>> '{accuracy,high}')::double precision AS accuracy_high,
    (kinds.kind ->> 'name') || '@' || (kinds.kind ->> 'version') AS model
FROM events AS event CROSS JOIN LATERAL (SELECT watch.parsed(event.kind) AS kind) AS kinds;
COMMENT ON VIEW watch.events IS 'What happened to a job, counted from 1. Ask for one job, or for the newest of it.';

CREATE VIEW watch.failures AS
SELECT job.id AS job, 'job' AS what, job.state, watch.unquoted(job.reason) AS reason, 1::bigint AS count,
    watch.instant(job.updated_at) AS at
FROM distillations AS job WHERE job.state IN ('paused', 'failed', 'cancelled')
UNION ALL
SELECT prompts.distillation_id, 'prompt', prompts.state, watch.unquoted(prompts.error), count(*), NULL
FROM prompts WHERE prompts.state = 'parked'
GROUP BY prompts.distillation_id, prompts.state, watch.unquoted(prompts.error);
COMMENT ON VIEW watch.failures IS
    'Why jobs stopped, and why prompts of them were parked. Ask for what = ''job'', or for one job.';

CREATE VIEW watch.backlog AS
SELECT job.id AS job, job.name, prompts.pending, prompts.leased
FROM distillations AS job
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE prompts.state = 'pending') AS pending,
        count(*) FILTER (WHERE prompts.state = 'leased') AS leased
    FROM prompts WHERE prompts.distillation_id = job.id AND prompts.state IN ('pending', 'leased')
) AS prompts
WHERE job.state IN ('queued', 'harvesting');
COMMENT ON VIEW watch.backlog IS
    'Prompts of running jobs that wait or are being asked: what a scaler of harvesters adds up. Paused jobs need nobody.';
