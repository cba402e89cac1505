UPDATE distillations SET teacher_accuracy = $1, harvest_seconds = $2 WHERE id = $3
