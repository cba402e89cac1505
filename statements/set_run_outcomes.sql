UPDATE runs SET outcomes = $1 WHERE id = $2
