-- KEYS: a mailbox. ARGV: its time to live in seconds, then messages. The time starts with the first message after the
-- mailbox was emptied, so a mailbox that nobody reads is removed even if messages keep coming. It also starts for a
-- mailbox that has none, which agentexec did not make.
local count = redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
if count == #ARGV - 1 or redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return count
