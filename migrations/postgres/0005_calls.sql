-- What is reserved is a call, not a prompt: every request to a teacher, retries included, stands here from before it is
-- sent until its end is known. One that is marked, or whose prompt has no live lease of its attempt any more, is in doubt:
-- its bounds count as spent. Whoever writes here holds the job's row.
CREATE TABLE calls (
    id UUID PRIMARY KEY,
    distillation_id UUID NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    prompt_id UUID NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    tokens BIGINT NOT NULL,
    money_micros BIGINT NOT NULL,
    in_doubt BOOLEAN NOT NULL DEFAULT FALSE
);
-- What a job has reserved.
CREATE INDEX calls_by_job ON calls (distillation_id);
CREATE INDEX calls_by_prompt ON calls (prompt_id);
-- A few rows that come and go by the thousand: dead ones are removed early.
ALTER TABLE calls SET (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

DROP VIEW watch.spend;

ALTER TABLE distillations DROP COLUMN prompts_reserved, DROP COLUMN tokens_reserved;
ALTER TABLE prompts DROP COLUMN reserved;
-- The most that asking a prompt once can cost.
ALTER TABLE prompts RENAME COLUMN tokens_reserved TO tokens_max;
ALTER TABLE prompts ADD COLUMN money_micros_max BIGINT NOT NULL DEFAULT 0;

CREATE VIEW watch.spend AS
SELECT job.id AS job, job.name, accounts.resource, accounts.used, accounts.reserved, accounts.in_doubt, accounts.allowed,
    (accounts.used + accounts.in_doubt) / nullif(accounts.allowed, 0) AS share
FROM distillations AS job
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE NOT doubtful)::double precision AS calls,
        coalesce(sum(tokens) FILTER (WHERE NOT doubtful), 0)::double precision AS tokens,
        coalesce(sum(money_micros) FILTER (WHERE NOT doubtful), 0)::double precision AS money_micros,
        count(*) FILTER (WHERE doubtful)::double precision AS calls_in_doubt,
        coalesce(sum(tokens) FILTER (WHERE doubtful), 0)::double precision AS tokens_in_doubt,
        coalesce(sum(money_micros) FILTER (WHERE doubtful), 0)::double precision AS money_micros_in_doubt
    FROM (
        SELECT calls.tokens, calls.money_micros, calls.in_doubt OR prompts.state <> 'leased'
            OR prompts.attempt <> calls.attempt OR prompts.lease_until <= now_ms() AS doubtful
        FROM calls JOIN prompts ON prompts.id = calls.prompt_id WHERE calls.distillation_id = job.id
    ) AS reserved
) AS open
CROSS JOIN LATERAL (VALUES
    ('prompts', job.calls::double precision, open.calls, open.calls_in_doubt, job.prompts_max::double precision),
    ('tokens', (job.tokens_in + job.tokens_out)::double precision, open.tokens, open.tokens_in_doubt,
        job.tokens_max::double precision),
    ('money', job.money_micros / 1e6::double precision, open.money_micros / 1e6::double precision,
        open.money_micros_in_doubt / 1e6::double precision, job.money_micros_max / 1e6::double precision)
) AS accounts (resource, used, reserved, in_doubt, allowed);
COMMENT ON VIEW watch.spend IS
    'What a job has spent of its budget: prompts, tokens, money. In doubt are calls whose end is not known, at the most they can cost. Without a limit, allowed and share are NULL.';
