-- Brings back what is due. Returns the milliseconds until the next one is, or -1 where nothing is postponed.
-- KEYS: the stream, what is postponed, the index. ARGV: how many at most.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])) do
    local prompt, id, traceparent = string.match(entry, '^(%S+) (%S+) (.*)$')
    local again = redis.call('XADD', KEYS[1], '*', 'prompt', prompt, 'traceparent', traceparent)
    redis.call('ZREM', KEYS[2], entry)
    redis.call('ZREM', KEYS[3], prompt .. ' ' .. id)
    redis.call('ZADD', KEYS[3], 0, prompt .. ' ' .. again)
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if #first == 0 then return -1 end
return math.max(0, first[2] - now)
