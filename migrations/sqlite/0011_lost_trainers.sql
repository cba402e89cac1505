-- A run at which one trainer after another is lost, without a step beyond those before, is not leased for ever.
-- How many in a row were lost so: their leases ran out.
ALTER TABLE runs ADD COLUMN lost_trainers INTEGER NOT NULL DEFAULT 0 CHECK (lost_trainers >= 0);
