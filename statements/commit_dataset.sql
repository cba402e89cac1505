UPDATE datasets SET state = 'committed', fingerprint = $1 WHERE id = $2
