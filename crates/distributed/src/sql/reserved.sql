SELECT calls.distillation_id,
    (calls.in_doubt OR prompts.state <> 'leased' OR prompts.attempt <> calls.attempt
        OR prompts.lease_until <= now_ms()) AS "in_doubt!",
    count(*) AS "calls!", sum(calls.tokens)::bigint AS "tokens!", sum(calls.money_micros)::bigint AS "money_micros!"
FROM calls JOIN prompts ON prompts.id = calls.prompt_id
WHERE calls.distillation_id = ANY ($1)
GROUP BY 1, 2
