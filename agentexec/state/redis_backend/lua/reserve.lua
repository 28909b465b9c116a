-- KEYS: buckets. ARGV: longest wait (-1: take after any wait), then for each bucket the time in which the amount is
-- refilled, and the time in which the empty bucket is filled. All times are microseconds.
-- A bucket is the time at which it will be full again. Returns the wait; above the longest wait nothing was taken.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local max_wait = tonumber(ARGV[1])
local MAX_DEBT = 7 * 86400 * 1000000 -- as in llm/rate_limits.py
local wait, full_at = 0, {}
for i, key in ipairs(KEYS) do
    local refill, full_refill = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local stored = tonumber(redis.call('GET', key) or 0) or 0
    -- What is further from full was not written by agentexec, and NaN compares as false.
    if not (stored <= now + MAX_DEBT) then
        stored = 0
    end
    full_at[i] = math.min(math.max(now, stored) + refill, now + MAX_DEBT)
    wait = math.max(wait, full_at[i] - now - math.max(full_refill, refill))
end
if max_wait < 0 or wait <= max_wait then
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
