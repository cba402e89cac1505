SELECT count(*) AS "count!"
FROM distillations
WHERE dataset_id = $1
AND (
    state NOT IN ('succeeded', 'failed', 'cancelled')
    OR EXISTS (
        SELECT 1 FROM runs WHERE distillation_id = distillations.id AND runs.state IN ('pending', 'leased')
    )
)
