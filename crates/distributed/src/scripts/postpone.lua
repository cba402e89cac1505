-- Takes an entry out of the stream until it is due. An entry that is not there any more is left alone.
-- KEYS: the stream, what is postponed, the index. ARGV: the group, the entry, its prompt, its trace context, the delay in
-- milliseconds.
local id, prompt, traceparent, delay = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
redis.call('XACK', KEYS[1], ARGV[1], id)
if redis.call('XDEL', KEYS[1], id) == 0 then return 0 end
if delay > 0 then
    local time = redis.call('TIME')
    local due = time[1] * 1000 + math.floor(time[2] / 1000) + delay
    redis.call('ZADD', KEYS[2], string.format('%.0f', due), prompt .. ' ' .. id .. ' ' .. traceparent)
else
    local again = redis.call('XADD', KEYS[1], '*', 'prompt', prompt, 'traceparent', traceparent)
    redis.call('ZREM', KEYS[3], prompt .. ' ' .. id)
    redis.call('ZADD', KEYS[3], 0, prompt .. ' ' .. again)
end
return 1
