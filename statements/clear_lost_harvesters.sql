UPDATE distillations SET lost_harvesters = 0 WHERE id = $1 AND lost_harvesters > 0
