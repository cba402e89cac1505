-- These calls are still being made; they are all that the replica has, so that what it lost without an end comes back, and
-- what Redis forgot is counted again. ARGV: permits.
in_flight()
for _, permit in ipairs(ARGV) do
    local until_then = tonumber(redis.call('ZSCORE', PERMITS, permit) or nil) or 0
    take(permit, math.max(until_then, now + C.PERMIT_MAX_US))
end
return 0
