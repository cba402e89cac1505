UPDATE runs SET state = $1, reason = $2, trainer = '', lease_until = 0 WHERE id = $3
