-- KEYS: a leadership. ARGV: owner, time to live in milliseconds, longest that any may have. Returns 1 if the owner holds it now.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  -- A leadership that never ends, or ends later than any can, is not ours: it would keep every reconciler from leading.
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 and left <= tonumber(ARGV[3]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
