UPDATE runs SET state = $1, reason = '', lost_trainers = 0 WHERE distillation_id = $2 AND state = $3
