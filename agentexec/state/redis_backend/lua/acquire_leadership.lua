-- KEYS: a leadership. ARGV: owner, time to live in milliseconds. Returns 1 if the owner holds it now.
local holder = redis.call('GET', KEYS[1])
-- A leadership without a time to live is not ours: it would block every reconciler.
if holder and holder ~= ARGV[1] and redis.call('PTTL', KEYS[1]) ~= -1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
