SELECT id, distillation_id, row_index, sample, hinted, purpose, rationale, label, parse_reason,
    verdict, reason, weight, text, model
FROM prompts
JOIN completions USING (key)
WHERE distillation_id = $1
AND state = 'answered' AND row_index > $2 AND (CAST($3 AS TEXT) IS NULL OR verdict = $3)
ORDER BY row_index, sample, hinted, purpose
LIMIT $4
