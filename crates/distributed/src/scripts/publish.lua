-- Appends entries in order, as far as they fit; a prompt that has an entry needs no second one, whichever relay is late.
-- Returns how many are published now, or -1 where there is no room for any.
-- KEYS: the stream, what is postponed, the index. ARGV: the capacity, then a prompt and a trace context for each entry.
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1]) - redis.call('ZCARD', KEYS[2])
local count = (#ARGV - 1) / 2
for place = 1, count do
    local prompt, traceparent = ARGV[2 * place], ARGV[2 * place + 1]
    -- From the prompt and a space to the prompt and the next character: its entries.
    if redis.call('ZLEXCOUNT', KEYS[3], '[' .. prompt .. ' ', '(' .. prompt .. '!') == 0 then
        if room <= 0 then
            if place == 1 then return -1 end
            return place - 1
        end
        local id = redis.call('XADD', KEYS[1], '*', 'prompt', prompt, 'traceparent', traceparent)
        redis.call('ZADD', KEYS[3], 0, prompt .. ' ' .. id)
        room = room - 1
    end
end
return count
