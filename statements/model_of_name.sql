SELECT id, name, version, distillation_id, run_id, path, manifest_sha256, parameters, validation,
    test, created_at, traceparent
FROM models
WHERE name = $1 AND (CAST($2 AS BIGINT) IS NULL OR version = $2)
ORDER BY version DESC
LIMIT 1
