-- KEYS: the followers of each task. ARGV: a mailbox, and for how many seconds it follows them.
local lapses = redis.call('TIME')[1] + ARGV[2]
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, lapses, ARGV[1])
  redis.call('EXPIRE', key, ARGV[2])
end
return #KEYS
