-- A job that asks until rationales stop helping probes while it harvests: short trainings over the rationales of a share of
-- the train rows.
-- The share of a probe; empty for a run that reads the rationales of all its rows.
ALTER TABLE runs ADD COLUMN share TEXT NOT NULL DEFAULT ''
    CHECK (share IN ('', 'none', 'eighth', 'quarter', 'half', 'all'));
-- Which rows it got right, as JSON; none for a run that is not asked.
ALTER TABLE runs ADD COLUMN outcomes TEXT;
