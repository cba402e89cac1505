-- The W3C trace context of the call that submitted a job: its prompts, its run and its model go on with that trace. Empty
-- where there is none.
ALTER TABLE distillations ADD COLUMN traceparent TEXT NOT NULL DEFAULT '';
-- Models outlive their jobs.
ALTER TABLE models ADD COLUMN traceparent TEXT NOT NULL DEFAULT '';
