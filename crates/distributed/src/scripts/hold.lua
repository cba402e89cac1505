-- Makes everybody wait; a longer wait that is under way stays.
-- KEYS: the profile's bucket. ARGV: the wait in milliseconds, how long the bucket is remembered at least.
local time = redis.call('TIME')
local until_then = time[1] * 1000000 + time[2] + ARGV[1] * 1000
local held = tonumber(redis.call('HGET', KEYS[1], 'held_until')) or 0
if until_then > held then
    redis.call('HSET', KEYS[1], 'held_until', string.format('%.0f', until_then))
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[1] + ARGV[2]))
end
return 0
