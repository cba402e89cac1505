-- Reserves one request and a number of tokens. Returns 0, or the milliseconds to wait.
-- KEYS: the profile's bucket, the reservation. ARGV: requests a minute, tokens a minute (empty where there is no limit),
-- tokens wanted, how long the reservation and the bucket are remembered in milliseconds.
local MINUTE = 60000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local bucket = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'refilled_at', 'held_until')
local passed = math.max(0, now - (tonumber(bucket[3]) or now))

-- The level now; a bucket that was never drawn from is full.
local function refilled(level, limit)
    if not limit then return nil end
    return math.min(limit, (tonumber(level) or limit) + passed / MINUTE * limit)
end

-- Microseconds until so much is there.
local function missing(level, wanted, limit)
    if not limit or level >= wanted then return 0 end
    return (wanted - level) / math.max(limit, 1) * MINUTE
end

local requests_limit, tokens_limit, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local requests, tokens = refilled(bucket[1], requests_limit), refilled(bucket[2], tokens_limit)
local wait = math.max(
    (tonumber(bucket[4]) or 0) - now,
    missing(requests, 1, requests_limit),
    missing(tokens, wanted, tokens_limit))
if wait > 0 then return math.floor(wait / 1000) + 1 end
if not requests_limit and not tokens_limit then return 0 end

local function keep(field, level)
    if level then
        redis.call('HSET', KEYS[1], field, string.format('%.6f', level))
    else
        redis.call('HDEL', KEYS[1], field)
    end
end
keep('requests', requests and requests - 1)
keep('tokens', tokens and tokens - wanted)
redis.call('HSET', KEYS[1], 'refilled_at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 0
