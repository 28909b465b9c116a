-- ARGV: ids. Delayed tasks become ready now, behind the tasks that are ready; other tasks stay as they are.
local moment, count = now(), 0
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ARGV))) do
  local _, name = parse(mark)
  if name and redis.call('ZREM', DELAYED, ARGV[i]) == 1 then
    redis.call('ZADD', LANES[name], digits(moment), ARGV[i])
    count = count + 1
  end
end
wake(count)
return count
