UPDATE distillations SET obstacle = $1 WHERE id = $2 AND state = 'harvesting' AND obstacle <> $1
