-- Appends entries in order, as far as they fit. Returns how many, or -1 where there is no room for any.
-- KEYS: the stream, what is postponed, the index. ARGV: the capacity, then a prompt and a trace context for each entry.
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1]) - redis.call('ZCARD', KEYS[2])
if room <= 0 then return -1 end
local fitting = math.min(room, (#ARGV - 1) / 2)
for place = 1, fitting do
    local prompt, traceparent = ARGV[2 * place], ARGV[2 * place + 1]
    local id = redis.call('XADD', KEYS[1], '*', 'prompt', prompt, 'traceparent', traceparent)
    redis.call('ZADD', KEYS[3], 0, prompt .. ' ' .. id)
end
return fitting
