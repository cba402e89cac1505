UPDATE prompts
SET state = 'pending', failures = 0
WHERE distillation_id = $1 AND state = 'parked' AND (CAST($2 AS TEXT) = '' OR replace(error, $2, '') <> error)
