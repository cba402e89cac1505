UPDATE distillations SET run_id = $1 WHERE id = $2
