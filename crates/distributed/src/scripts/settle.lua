-- How a call ended, once for each booking.
-- ARGV: the permit; the end (not_sent, unknown, answered, refused, failed); tokens in and out; seconds it took; the wait that the server
-- asked for in microseconds (empty for none); whether it has too much to do; jitter in [0, 1); then for each limit of the
-- headers its place, the limit, what remains, and microseconds until it is whole (each empty where unknown).
local permit, ended = ARGV[1], ARGV[2]
local used_in, used_out, took = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local asked, overloaded, jitter = tonumber(ARGV[6]), ARGV[7] == '1', tonumber(ARGV[8])

local line = redis.call('GETDEL', BOOKING)
if not line then
    release(permit)
    return 0
end
local booking = read_booking(line)
local busy = in_flight()
local was_probe = probe == permit
if was_probe then probe = nil end
release(permit)
if ended == 'unknown' then used_in, used_out = booking.tokens_in, booking.tokens_out end
return_unused(booking, ended ~= 'not_sent', used_in, used_out)

local function jittered(wait) return wait * (1 + C.JITTER * jitter) end

local function see(place, limit, remaining, reset)
    if limit and limit > 0 and (not reset or reset <= C.SEEN_RESET_MAX_US) then
        S['seen' .. place], S['seen_until' .. place] = limit, now + C.SEEN_MAX_US
    end
    if remaining == 0 and reset then hold(math.min(reset, C.NOTHING_LEFT_MAX_US), RATE) end
end

-- A burst of refusals begins.
local function cut()
    S.burst_at, S.grown, S.answers = now, 1, 0
    S.ceiling = math.max(1, ceiling() * C.CEILING_CUT)
end

-- What was taken of the limits in the minute before the call started, and the second of the first call in it.
local function used()
    local fields = {}
    for place = 0, 63 do fields[place + 1] = 'mark' .. place end
    local from = math.floor((booking.start - C.MINUTE_US) / SECOND)
    local first
    for _, mark in ipairs(redis.call('HMGET', STATE, unpack(fields))) do
        if mark then
            local second, taken, returned = mark:match('^(%S+) (%S+) (%S+)$')
            second = tonumber(second)
            if second > from and (not first or second < first.second) then
                first = {second = second, taken = tonumber(taken), returned = tonumber(returned)}
            end
        end
    end
    if not first then return 0, from end
    return math.max(0, booking.taken - first.taken - ((S.returned or 0) - first.returned)), first.second
end

local function learn(part)
    if part > 0 then
        local most_now = C.FACTOR_CUT * factor()
        S.refused, S.refused_at = math.max(C.FACTOR_LEAST, math.min(part, most_now)), now
    end
end

local function refuse()
    if booking.start <= (S.burst_at or -1) then
        -- A call of the burst that was refused already.
        if asked then hold(jittered(asked), REFUSED) end
        return
    end
    cut()
    S.strikes = (S.strikes or 0) + 1
    local part, oldest = used()
    local plausible = part >= C.PLAUSIBLE * factor()
    if S.strikes <= 1 then S.early = part end
    if plausible then
        learn(part)
    elseif S.strikes >= 2 then
        learn(S.early or 0)
        S.early = 0
    end
    local function wait_of(strikes)
        return math.min(C.REFUSED_MAX_US, C.REFUSED_FIRST_US * 2 ^ math.min(30, strikes - 1))
    end
    local wait = S.strikes > 1 and wait_of(S.strikes) or 0
    if asked then
        wait = math.max(wait, asked)
    elseif plausible then
        -- What was sent in the last minute begins to leave the window then.
        wait = math.max(wait, SECOND, (oldest + 61) * SECOND - now)
    else
        wait = math.max(wait, wait_of(1))
    end
    S.probing, probe = 1, nil
    hold(jittered(wait), REFUSED)
end

local function fail()
    if overloaded and booking.start > (S.burst_at or -1) then cut() end
    local least = asked and jittered(asked) or 0
    if least > 0 then hold(least, FAILED) end
    if booking.start <= (S.opened_at or -1) then return end
    S.failures = (S.failures or 0) + 1
    if was_probe or S.failures >= C.FAILURES_MAX then
        S.openings = (S.openings or 0) + 1
        local wait = math.min(C.FAILED_MAX_US, C.FAILED_FIRST_US * 2 ^ math.min(30, S.openings - 1))
        S.failures, S.opened_at, S.probing, probe = 0, now, 1, nil
        hold(math.max(C.FAILED_LEAST_US, wait * jitter, least), FAILED)
    end
end

local function grow()
    S.answers = (S.answers or 0) + 1
    if 2 * busy >= ceiling() and (not S.grown or S.answers >= C.CEILING_ANSWERS) then
        S.answers = 0
        S.ceiling = math.max(1, math.min(ceiling() + 1, S.concurrency_max or math.huge))
    end
end

-- Output tokens a second, over about a second, by the binary logarithm of the ceiling.
local function measure()
    local most_now = ceiling()
    local level = math.min(15, math.floor(math.log(most_now) / math.log(2) + 1e-9))
    if (S.measure_calls or 0) == 0 or S.measure_level ~= level then
        S.measure_began, S.measure_level = now, level
        S.measure_calls, S.measure_full, S.measure_tokens, S.measure_latency = 0, 0, 0, 0
    end
    local tokens = math.max(1, used_out)
    S.measure_calls = S.measure_calls + 1
    if busy >= 0.8 * math.floor(most_now) then S.measure_full = S.measure_full + 1 end
    S.measure_tokens = S.measure_tokens + tokens
    S.measure_latency = S.measure_latency + took / tokens
    local passed = now - S.measure_began
    if passed < C.MEASURED_US or S.measure_calls < 2 * most_now then return end
    local latency, throughput = S.measure_latency / S.measure_calls, S.measure_tokens / passed
    local full = S.measure_full >= 0.8 * S.measure_calls
    S.measure_best = math.min(latency, S.measure_best and S.measure_best * 1.01 or latency)
    S.measure_calls = 0
    if not full then return end
    redis.call('HSET', STATE, 'throughput' .. level, text(throughput))
    local of_half = tonumber(redis.call('HGET', STATE, 'throughput' .. (level - 1)) or nil)
    if of_half and latency > C.SLOWER * S.measure_best and throughput < C.GAIN * of_half then
        S.grown, S.answers = 1, 0
        S.ceiling = math.max(1, most_now * C.CEILING_CUT)
    end
end

for place = 9, #ARGV, 4 do
    see(ARGV[place], tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3]))
end
if ended == 'answered' then
    S.answered_at, S.failures = now, 0
    if booking.start > math.max(S.burst_at or -1, S.opened_at or -1) then
        S.probing, S.strikes, S.openings = nil, 0, 0
    end
    grow()
    measure()
elseif ended == 'refused' then
    refuse()
elseif ended == 'failed' then
    fail()
end
save()
return 1
