INSERT INTO outbox (prompt_id)
SELECT id FROM prompts
WHERE distillation_id = $1 AND state = 'parked' AND (CAST($2 AS TEXT) = '' OR replace(error, $2, '') <> error)
ORDER BY row_index, sample, hinted, purpose
ON CONFLICT (prompt_id) DO NOTHING
