SELECT id
FROM runs
WHERE distillation_id = $1 AND NOT EXISTS (SELECT 1
FROM models
WHERE models.run_id = runs.id)
ORDER BY created_at, id
