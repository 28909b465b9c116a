-- KEYS: a leadership. ARGV: owner. Only the owner can release it.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
