-- Returns or takes the difference between what was reserved and what was used; once for each reservation.
-- KEYS: the profile's bucket, the reservation. ARGV: tokens used.
local reserved = redis.call('GETDEL', KEYS[2])
if not reserved then return 0 end
-- A level that is not kept is full, or without a limit. One that is too high is cut when it is refilled.
if redis.call('HEXISTS', KEYS[1], 'tokens') == 1 then
    redis.call('HINCRBYFLOAT', KEYS[1], 'tokens', string.format('%.0f', reserved - ARGV[1]))
end
if tonumber(ARGV[1]) == 0 and redis.call('HEXISTS', KEYS[1], 'requests') == 1 then
    redis.call('HINCRBYFLOAT', KEYS[1], 'requests', '1')
end
return 1
