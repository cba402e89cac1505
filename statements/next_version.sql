INSERT INTO versions (name, newest)
VALUES ($1, 1)
ON CONFLICT (name) DO UPDATE
SET newest = versions.newest + 1 RETURNING newest
