-- What is reserved is a call, not a prompt: every request to a teacher, retries included, stands here from before it is
-- sent until its end is known. One that is marked, or whose prompt has no live lease of its attempt any more, is in doubt:
-- its bounds count as spent.
CREATE TABLE calls (
    id BLOB PRIMARY KEY NOT NULL,
    distillation_id BLOB NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    prompt_id BLOB NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    money_micros INTEGER NOT NULL,
    in_doubt INTEGER NOT NULL DEFAULT 0 CHECK (in_doubt IN (0, 1))
) STRICT;
-- What a job has reserved.
CREATE INDEX calls_by_job ON calls (distillation_id);
CREATE INDEX calls_by_prompt ON calls (prompt_id);

ALTER TABLE distillations DROP COLUMN prompts_reserved;
ALTER TABLE distillations DROP COLUMN tokens_reserved;
ALTER TABLE prompts DROP COLUMN reserved;
-- The most that asking a prompt once can cost.
ALTER TABLE prompts RENAME COLUMN tokens_reserved TO tokens_max;
ALTER TABLE prompts ADD COLUMN money_micros_max INTEGER NOT NULL DEFAULT 0;
