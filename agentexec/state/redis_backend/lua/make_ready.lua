-- ARGV: ids. Delayed tasks become ready now, behind those that are; all others are left as they are.
local moment, hastened = now(), 0
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ARGV))) do
  local _, name = parse(mark)
  if name and redis.call('ZREM', DELAYED, ARGV[i]) == 1 then
    redis.call('ZADD', LANES[name], digits(moment), ARGV[i])
    hastened = hastened + 1
  end
end
wake(hastened)
return hastened
