-- A booked call is about to be sent. Returns {0}, or {1, microseconds to wait, why} where it must not be; it is then returned.
-- ARGV: the permit.
local line = redis.call('GET', BOOKING)
in_flight()
local paused, reason = obstacle(ARGV[1])
if paused then
    if line then
        redis.call('DEL', BOOKING)
        return_unused(read_booking(line), false, 0, 0)
    end
    release(ARGV[1])
    save()
    return {1, math.ceil(paused), reason}
end
if line then
    local booking = read_booking(line)
    booking.start = now
    write_booking(booking)
end
if probe == ARGV[1] then S.probe_at = now end
take(ARGV[1], now + C.PERMIT_MAX_US)
save()
return {0}
