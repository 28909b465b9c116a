-- KEYS: buckets. ARGV: patience (-1: take in any case), then for each bucket its cost and window. Microseconds.
-- A bucket is the moment at which it will be full again. Returns the wait; above the patience nothing was taken.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local patience = tonumber(ARGV[1])
local wait, full_at = 0, {}
for i, key in ipairs(KEYS) do
    local cost, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    full_at[i] = math.max(now, tonumber(redis.call('GET', key) or 0) or 0) + cost
    wait = math.max(wait, full_at[i] - now - math.max(window, cost))
end
if patience < 0 or wait <= patience then
    for i, key in ipairs(KEYS) do
        local left = full_at[i] - now
        if left > 0 then
            redis.call('SET', key, string.format('%.0f', full_at[i]), 'PX', math.ceil(left / 1000))
        else
            redis.call('DEL', key)
        end
    end
end
return string.format('%.0f', wait)
