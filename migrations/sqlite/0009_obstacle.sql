-- Why the teacher of a harvesting job answers nothing at present; empty where it does.
ALTER TABLE distillations ADD COLUMN obstacle TEXT NOT NULL DEFAULT '';
