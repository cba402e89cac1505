UPDATE distillations SET model_id = $1, train_seconds = $2, evaluate_seconds = $3 WHERE id = $4
