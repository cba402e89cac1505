UPDATE calls SET in_doubt = TRUE WHERE id = $1
