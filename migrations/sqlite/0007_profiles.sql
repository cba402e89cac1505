-- Which of a job's profiles a prompt asks, by its place: several are asked in turn.
ALTER TABLE prompts ADD COLUMN profile INTEGER NOT NULL DEFAULT 0;
