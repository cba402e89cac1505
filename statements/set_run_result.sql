UPDATE runs
SET path = $1, manifest_sha256 = $2, parameters = $3, validation = $4, test = $5, train_seconds =
    $6, evaluate_seconds = $7
WHERE id = $8
