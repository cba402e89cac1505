SELECT id, name, state, rows, rows_train, rows_validation, rows_test, rows_labelled, fingerprint,
    created_at
FROM datasets
WHERE id = $1
