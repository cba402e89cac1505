SELECT id, name, version, distillation_id, run_id, path, manifest_sha256, parameters, validation,
    test, created_at, traceparent
FROM models
WHERE id = $1
