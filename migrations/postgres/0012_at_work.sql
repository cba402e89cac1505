-- A job that one harvester after another is lost at, without coming further, is not worked at for ever.
-- Which harvesters are at work at which jobs, and until when that holds unless they prolong it. One that is lost leaves its line.
CREATE TABLE at_work (
    distillation_id UUID NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    harvester TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (distillation_id, harvester)
);
-- How many in a row were lost at it.
ALTER TABLE distillations ADD COLUMN lost_harvesters INTEGER NOT NULL DEFAULT 0 CHECK (lost_harvesters >= 0);
