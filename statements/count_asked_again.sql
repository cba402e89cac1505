SELECT count(*) AS "count!"
FROM prompts
WHERE distillation_id = $1
AND state = 'pending' AND attempt > 0
