SELECT id, distillation_id, row_index, sample, hinted, purpose, rationale, label, parse_reason,
    verdict, reason, weight, text, model
FROM prompts
JOIN completions USING (key)
WHERE distillation_id = $1
AND state = 'answered' AND row_index > $2 AND row_index < $3 AND (CAST($4 AS TEXT) IS NULL OR verdict = $4)
AND (CAST($5 AS TEXT) = '' OR $5 LIKE '%,' || reason || ',%') AND (CAST($6 AS TEXT) IS NULL OR model = $6)
ORDER BY row_index, sample, hinted, purpose
LIMIT $7
