-- Removes consumers that are gone: silent for long, and with nothing in their hands. Returns how many.
-- KEYS: the stream. ARGV: the group, the silence in milliseconds.
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
local removed = 0
for _, fields in ipairs(consumers) do
    local consumer = {}
    for place = 1, #fields, 2 do consumer[fields[place]] = fields[place + 1] end
    if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
        removed = removed + 1
    end
end
return removed
