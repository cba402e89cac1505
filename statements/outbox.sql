SELECT outbox.prompt_id AS prompt, traceparent
FROM outbox
JOIN prompts ON prompts.id = outbox.prompt_id
JOIN distillations ON distillations.id = prompts.distillation_id
ORDER BY outbox.sequence
LIMIT $1
