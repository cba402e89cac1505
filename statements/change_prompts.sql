UPDATE prompts SET state = $1, failures = 0 WHERE distillation_id = $2 AND state = $3
