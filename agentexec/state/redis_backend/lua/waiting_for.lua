-- ARGV: id. Returns the group for which a task waits, the ids that it has admitted (the first few of them), and the number of
-- tasks that wait before this one. Returns nothing for a task that does not wait. Changes nothing.
local member = redis.call('HGET', PARKED, ARGV[1])
if not (member and redis.call('ZSCORE', LINE, member)) then return false end
local group = string.sub(member, 1, #member - ID_LENGTH - PLACE_DIGITS - 2)
local first, last = bounds(group)
local holders = {}
for _, holder in ipairs(redis.call('ZRANGEBYLEX', HELD, first, last, 'LIMIT', 0, MAX_CHECKED)) do
  local id = string.sub(holder, #group + 2)
  if is_id(id) then holders[#holders + 1] = id end
end
return {group, redis.call('ZLEXCOUNT', LINE, first, '(' .. member), holders}
