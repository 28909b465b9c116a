-- KEYS: the followers of each task. ARGV: a mailbox, and the seconds for which it follows them.
local expires_at = redis.call('TIME')[1] + ARGV[2]
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, expires_at, ARGV[1])
  redis.call('EXPIRE', key, ARGV[2])
end
return #KEYS
