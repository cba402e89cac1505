SELECT outcomes FROM runs WHERE id = $1
