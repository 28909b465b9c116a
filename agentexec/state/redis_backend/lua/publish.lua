-- KEYS: the stream of a task's events, and its followers. ARGV: number of events to keep, seconds to keep them after the
-- last one, then texts. The first number comes from the clock, and each further one is 1 higher, so a new stream continues
-- above the numbers of an expired one. Returns the mailboxes that follow the task.
-- Before anything is written: a key of another type ends the script, which is then run again.
local time = redis.call('TIME')
local window = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', time[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], time[1] + 2 * window, '+inf')
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local clock = time[1] * 1000000 + time[2]
local number = last and tonumber(string.match(last[1], '^%d+')) or clock
if number > 2 * clock then
  -- Not our number: no event could be appended after it.
  redis.call('DEL', KEYS[1])
  number = clock
end
for i = 3, #ARGV do
  number = number + 1
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], string.format('%.0f-0', number), 'e', ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[2], 0, -1)
