SELECT distillation_id, sequence, at, kind
FROM events
WHERE distillation_id = $1 AND sequence > $2
ORDER BY sequence
LIMIT $3
