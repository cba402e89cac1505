SELECT id, name, state, rows, rows_train, rows_validation, rows_test, rows_labelled, fingerprint,
    created_at
FROM datasets
WHERE name = $1
AND state = 'committed'
ORDER BY created_at DESC, id DESC
LIMIT 1
