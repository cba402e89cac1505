SELECT key, text, finish_reason, model, tokens_in, tokens_out, money_micros, seconds
FROM completions
WHERE key = $1
