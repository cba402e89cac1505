SELECT step, name, value
FROM metrics
WHERE run_id = $1 AND (CAST($2 AS TEXT) IS NULL OR name = $2)
ORDER BY step, name
LIMIT $3
