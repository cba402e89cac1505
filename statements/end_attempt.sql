UPDATE prompts
SET state = $1, failures = $2, error = $3, worker = ''
WHERE id = $4
