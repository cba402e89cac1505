SELECT id, name, version, distillation_id, run_id, path, manifest_sha256, parameters, validation,
    test, created_at, traceparent
FROM models
WHERE (created_at, id) < ($1, $2) AND (CAST($3 AS TEXT) IS NULL OR name = $3)
ORDER BY created_at DESC, id DESC
LIMIT $4
