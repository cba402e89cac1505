-- Makes the index again from stream and set, where it has not as many members as they have entries: a key was lost.
-- Returns how many members it had, and how many entries there are.
-- KEYS: the stream, what is postponed, the index. ARGV: how many entries of the stream are read at once.
local entries = redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2])
local indexed = redis.call('ZCARD', KEYS[3])
if indexed == entries then return {indexed, entries} end
redis.call('DEL', KEYS[3])
local from = '-'
repeat
    local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', ARGV[1])
    for _, entry in ipairs(page) do
        local id, fields = entry[1], entry[2]
        for place = 1, #fields, 2 do
            if fields[place] == 'prompt' then redis.call('ZADD', KEYS[3], 0, fields[place + 1] .. ' ' .. id) end
        end
        from = '(' .. id
    end
until #page == 0
for _, entry in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    redis.call('ZADD', KEYS[3], 0, string.match(entry, '^%S+ %S+'))
end
return {indexed, entries}
