SELECT id, name, state, rows, rows_train, rows_validation, rows_test, rows_labelled, fingerprint,
    created_at
FROM datasets
WHERE state = 'committed' AND (created_at, id) < ($1, $2)
ORDER BY created_at DESC, id DESC
LIMIT $3
