UPDATE runs SET state = $1, reason = '' WHERE distillation_id = $2 AND state = $3
