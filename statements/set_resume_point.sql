UPDATE runs SET step = $1, resume_path = $2 WHERE id = $3
