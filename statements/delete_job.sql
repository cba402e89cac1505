DELETE FROM distillations WHERE id = $1
