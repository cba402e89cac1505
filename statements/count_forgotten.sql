SELECT (SELECT count(*) FROM forgotten WHERE request_id = $1) AS "forgotten!", (
    SELECT count(*) FROM prompts
    WHERE distillation_id = $2 AND key IN (SELECT next FROM forgotten WHERE request_id = $1)
) AS "asked_again!"
