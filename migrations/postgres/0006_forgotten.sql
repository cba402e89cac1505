-- Addresses of completions that a user forgot on purpose, each with the one that follows it: whoever asks the same question
-- afterwards asks the teacher, under that. The completion stays as it is, and so do the entries of ended jobs.
CREATE TABLE forgotten (
    key BYTEA PRIMARY KEY,
    next BYTEA NOT NULL,
    request_id UUID NOT NULL, -- of the call that forgot it: repeated, it forgets nothing more
    at BIGINT NOT NULL
);
CREATE INDEX forgotten_by_request ON forgotten (request_id);
