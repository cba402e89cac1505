-- What the scripts of the teachers' limits share: the state of one profile, its permits, and the rules of `domain::pacing`.
-- Before this text stands the table C with that module's figures. Times are microseconds of the server's clock.
-- KEYS: the state, the permits (scored by the time until which they count), the replicas, the hours, the booking.
local STATE, PERMITS, REPLICAS, HOURS, BOOKING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local SECOND, HOUR, DAY_HOURS = 1000000, 3600000000, 25
local RATE, DAY, CONCURRENCY, REFUSED, FAILED, PROBE = 0, 1, 2, 3, 4, 5
local FULL_WAIT, PROBE_WAIT = 50000, 250000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local FIELDS = {
    'next0', 'next1', 'next2', 'next3', 'held_until', 'reason', 'probing', 'probe_at', 'refused', 'refused_at', 'burst_at', 'strikes',
    'early', 'failures', 'openings', 'opened_at', 'ceiling', 'concurrency_max', 'grown', 'answers', 'answered_at',
    'seen0', 'seen1', 'seen2', 'seen3', 'seen_until0', 'seen_until1', 'seen_until2', 'seen_until3', 'taken', 'returned',
    'measure_began', 'measure_level', 'measure_calls', 'measure_full', 'measure_tokens', 'measure_latency', 'measure_best',
}
local loaded = redis.call('HMGET', STATE, 'probe', unpack(FIELDS))
-- The probe is the name of a permit; everything else is a number.
local probe = loaded[1] or nil
local S = {}
for place, field in ipairs(FIELDS) do S[field] = tonumber(loaded[place + 1]) end

local function text(value)
    if value == math.floor(value) and math.abs(value) < 9e15 then return string.format('%.0f', value) end
    return string.format('%.14g', value)
end

-- Writes what has changed.
local function save()
    local set, gone = {}, {}
    for place, field in ipairs(FIELDS) do
        local value = S[field]
        if value == nil then
            if loaded[place + 1] then gone[#gone + 1] = field end
        elseif value ~= tonumber(loaded[place + 1]) then
            set[#set + 1] = field
            set[#set + 1] = text(value)
        end
    end
    if probe ~= (loaded[1] or nil) then
        if probe then
            set[#set + 1] = 'probe'
            set[#set + 1] = probe
        else
            gone[#gone + 1] = 'probe'
        end
    end
    if #set > 0 then redis.call('HSET', STATE, unpack(set)) end
    if #gone > 0 then redis.call('HDEL', STATE, unpack(gone)) end
    redis.call('PEXPIRE', STATE, C.STATE_MAX_MS)
end

local function factor()
    if not S.refused then return 1 end
    local width = C.FACTOR_PLATEAU_S / (1 - C.FACTOR_BEGIN) ^ (1 / 3)
    local from_plateau = ((now - S.refused_at) / SECOND - C.FACTOR_PLATEAU_S) / width
    return math.min(1, math.max(C.FACTOR_LEAST, S.refused * (1 + from_plateau ^ 3)))
end

local function debit(cost, limit)
    if cost <= 0 then return 0 end
    local share = cost / limit
    local minutes = share
    if share * C.MINUTE_US <= C.BURST_US then
        minutes = share * C.MINUTE_US / (C.MINUTE_US - C.BURST_US)
    elseif share <= 1 then
        minutes = 1 / math.floor(1 / share)
    end
    return minutes * C.MINUTE_US * C.MARGIN
end

local function ceiling()
    return math.max(1, math.min(S.ceiling or C.CEILING_FIRST, S.concurrency_max or math.huge))
end

local function owner(permit) return permit:match('^(.-):') end

local function released(permit)
    if redis.call('HINCRBY', REPLICAS, 'held:' .. owner(permit), -1) <= 0 then
        redis.call('HDEL', REPLICAS, 'held:' .. owner(permit))
    end
end

local function take(permit, live_until)
    if redis.call('ZADD', PERMITS, text(live_until), permit) == 1 then
        redis.call('HINCRBY', REPLICAS, 'held:' .. owner(permit), 1)
    end
    redis.call('PEXPIRE', PERMITS, C.STATE_MAX_MS)
    redis.call('PEXPIRE', REPLICAS, C.STATE_MAX_MS)
end

local function release(permit)
    if redis.call('ZREM', PERMITS, permit) == 1 then released(permit) end
end

-- Calls booked or in flight; permits of callers that are gone come back first.
local function in_flight()
    for _, permit in ipairs(redis.call('ZRANGEBYSCORE', PERMITS, '-inf', text(now), 'LIMIT', 0, 1000)) do
        release(permit)
    end
    return redis.call('ZCARD', PERMITS)
end

-- How long a pause or the probe that ends it keeps calls from starting, and why; `permit` is a booked call that wants to
-- start, and may be that probe.
local function obstacle(permit)
    if (S.held_until or 0) > now then return S.held_until - now, S.reason end
    if not S.probing then return nil end
    local until_then = probe and tonumber(redis.call('ZSCORE', PERMITS, probe))
    if until_then and until_then > now then
        if S.reason ~= FAILED and now - (S.probe_at or now) >= C.PROBE_TAKEN_US then
            S.probing = nil
        elseif probe ~= permit then
            return PROBE_WAIT, PROBE
        end
    else
        probe = permit
    end
    return nil
end

local function hold(wait, reason)
    if now + wait > (S.held_until or 0) then
        S.held_until = math.ceil(now + wait)
        S.reason = reason
    end
end

local function count_hour(at, requests, tokens)
    local hour = text(math.floor(at / HOUR))
    if requests ~= 0 then redis.call('HINCRBY', HOURS, 'requests:' .. hour, text(requests)) end
    if tokens ~= 0 then redis.call('HINCRBY', HOURS, 'tokens:' .. hour, text(tokens)) end
    redis.call('PEXPIRE', HOURS, C.STATE_MAX_MS)
end

-- A booking, as it is stored: one line of its figures.
local BOOKED = {
    'booked_at', 'start', 'tokens_in', 'tokens_out', 'debit0', 'debit1', 'debit2', 'debit3', 'share0', 'share1', 'share2',
    'share3', 'taken', 'days',
}

local function write_booking(booking)
    local values = {}
    for place, field in ipairs(BOOKED) do values[place] = text(booking[field]) end
    redis.call('SET', BOOKING, table.concat(values, ' '), 'PX', C.BOOKING_MAX_MS)
end

local function read_booking(line)
    local booking, place = {}, 0
    for value in line:gmatch('%S+') do
        place = place + 1
        booking[BOOKED[place]] = tonumber(value)
    end
    return booking
end

local function most(booking, parts)
    local found = 0
    for place = 0, 3 do
        found = math.max(found, booking['share' .. place] * (parts and parts[place] or 1))
    end
    return found
end

-- Gives back what a call did not use; what was sent stays counted as a request.
local function return_unused(booking, sent, used_in, used_out)
    local booked = {1, booking.tokens_in + booking.tokens_out, booking.tokens_in, booking.tokens_out}
    local used = {0, used_in + used_out, used_in, used_out}
    local parts = {[0] = sent and 1 or 0}
    for place = 1, 3 do
        parts[place] = booked[place + 1] > 0 and used[place + 1] / booked[place + 1] or 0
    end
    for place = 0, 3 do
        local change = booking['debit' .. place] * (1 - parts[place])
        if change ~= 0 and S['next' .. place] then S['next' .. place] = S['next' .. place] - change end
    end
    local unused = most(booking) - most(booking, parts)
    if unused ~= 0 then S.returned = (S.returned or 0) + unused end
    if booking.days == 1 then count_hour(booking.booked_at, sent and 0 or -1, used[2] - booked[2]) end
end
