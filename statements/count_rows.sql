UPDATE datasets
SET rows = rows + $1, rows_train = rows_train + $2, rows_validation = rows_validation + $3,
    rows_test = rows_test + $4, rows_labelled = rows_labelled + $5
WHERE id = $6
