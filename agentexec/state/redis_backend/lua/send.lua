-- KEYS: a mailbox. ARGV: its time to live in seconds, then messages. The time runs from the first message since the
-- mailbox was emptied, so one that nobody reads vanishes however much is sent to it.
local count = redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
if count == #ARGV - 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return count
