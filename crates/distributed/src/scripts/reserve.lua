-- Books a call. Returns {0, microseconds until it starts}, or {1, microseconds to wait, why}.
-- ARGV: the permit, four limits a minute, two a day (empty where there is none), calls at once, tokens in and out.
local permit, replica = ARGV[1], owner(ARGV[1])
local requests_day, tokens_day = tonumber(ARGV[6]), tonumber(ARGV[7])
local tokens_in, tokens_out = tonumber(ARGV[9]), tonumber(ARGV[10])
S.concurrency_max = tonumber(ARGV[8])

local function wait(microseconds, reason)
    save()
    return {1, math.ceil(microseconds), reason}
end

-- How long until the last 24 hours have room; nil where they have.
local function day_full()
    if not requests_day and not tokens_day then return nil end
    local hour, hours, known = math.floor(now / HOUR), {}, {}
    local counted = redis.call('HGETALL', HOURS)
    for place = 1, #counted, 2 do
        local kind, at = counted[place]:match('^(%a+):(%d+)$')
        at = tonumber(at)
        if hour - at >= DAY_HOURS then
            redis.call('HDEL', HOURS, counted[place])
        else
            if not known[at] then
                known[at] = {at = at, requests = 0, tokens = 0}
                hours[#hours + 1] = known[at]
            end
            known[at][kind] = tonumber(counted[place + 1])
        end
    end
    table.sort(hours, function(left, right) return left.at < right.at end)
    local requests, tokens, leaves = 1, tokens_in + tokens_out, 0
    for _, counts in ipairs(hours) do
        requests, tokens = requests + counts.requests, tokens + counts.tokens
    end
    local function full()
        return (requests_day and requests > requests_day) or (tokens_day and tokens > tokens_day)
    end
    while full() and leaves < #hours do
        leaves = leaves + 1
        requests, tokens = requests - hours[leaves].requests, tokens - hours[leaves].tokens
    end
    return leaves > 0 and math.max(1, (hours[leaves].at + DAY_HOURS) * HOUR - now) or nil
end

-- Whether this replica may have one more permit: each has its share while others wait, and who waits longest is next.
local function has_turn()
    local held, since, until_then, names = {}, {}, {}, {[replica] = true}
    local kinds = {held = held, since = since, ['until'] = until_then}
    local all = redis.call('HGETALL', REPLICAS)
    for place = 1, #all, 2 do
        local kind, name = all[place]:match('^(%a+):(.*)$')
        kinds[kind][name] = tonumber(all[place + 1])
    end
    for name in pairs(held) do names[name] = true end
    for name, waits in pairs(until_then) do
        if waits > now then
            names[name] = true
        else
            redis.call('HDEL', REPLICAS, 'since:' .. name, 'until:' .. name)
            until_then[name], since[name] = nil, nil
        end
    end
    local count = 0
    for _ in pairs(names) do count = count + 1 end
    local most_held = math.floor(ceiling())
    local share = math.max(1, math.floor(most_held / count))
    local others, claims, mine = false, 0, held[replica] or 0
    for name in pairs(until_then) do
        if name ~= replica and (held[name] or 0) < share then
            others = true
            if since[name] < (since[replica] or now) then claims = claims + 1 end
        end
    end
    local free = most_held - in_flight()
    if free <= 0 or free <= claims or (others and mine >= share) then
        redis.call('HSETNX', REPLICAS, 'since:' .. replica, text(now))
        redis.call('HSET', REPLICAS, 'until:' .. replica, text(now + 10 * FULL_WAIT))
        redis.call('PEXPIRE', REPLICAS, C.STATE_MAX_MS)
        return false
    end
    if until_then[replica] then redis.call('HDEL', REPLICAS, 'since:' .. replica, 'until:' .. replica) end
    return true
end

in_flight()
local paused, reason = obstacle(nil)
if paused then return wait(paused, reason) end
local day = day_full()
if day then return wait(day, DAY) end
if not has_turn() then return wait(FULL_WAIT, CONCURRENCY) end

local booking = {booked_at = now, tokens_in = tokens_in, tokens_out = tokens_out}
local part, start, costs = factor(), now, {1, tokens_in + tokens_out, tokens_in, tokens_out}
for place = 0, 3 do
    local limit, seen = tonumber(ARGV[place + 2]), S['seen' .. place]
    if seen and S['seen_until' .. place] > now then limit = math.min(limit or seen, seen) end
    booking['debit' .. place], booking['share' .. place] = 0, 0
    if limit then
        limit = math.max(1, limit)
        local takes = debit(costs[place + 1], limit * part)
        booking['debit' .. place], booking['share' .. place] = takes, costs[place + 1] / limit
        start = math.max(start, (S['next' .. place] or 0) - math.max(0, C.BURST_US - takes))
    end
end
start = math.ceil(start)
if start - now > C.BOOKED_AHEAD_MAX_US then return wait(start - now, RATE) end
for place = 0, 3 do
    local takes = booking['debit' .. place]
    if takes > 0 then S['next' .. place] = math.max(S['next' .. place] or 0, start) + takes end
end

local second = math.floor(start / SECOND)
local mark = 'mark' .. second % 64
local marked = redis.call('HGET', STATE, mark)
if not marked or tonumber(marked:match('^%S+')) ~= second then
    local line = text(second) .. ' ' .. text(S.taken or 0) .. ' ' .. text(S.returned or 0)
    redis.call('HSET', STATE, mark, line)
end
S.taken = (S.taken or 0) + most(booking)
booking.start, booking.taken, booking.days = start, S.taken, (requests_day or tokens_day) and 1 or 0
if booking.days == 1 then count_hour(now, 1, tokens_in + tokens_out) end
write_booking(booking)
take(permit, start + C.PERMIT_MAX_US)
if S.probing then probe, S.probe_at = permit, start end
save()
return {0, start - now}
