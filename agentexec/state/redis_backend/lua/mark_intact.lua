-- ARGV: id of this run of the server. Notes that the index is complete, and in the same moment puts the first task back into its lane
-- that waits for each lock which nobody has: claims have left them waiting until now, and what comes next must not overtake them.
local MAX_GROUPS = 10000
redis.call('SET', (string.gsub(WAKE, 'wake$', 'intact')), ARGV[1])
local from = '-'
for _ = 1, MAX_GROUPS do
  local member = redis.call('ZRANGEBYLEX', LINE, from, '+', 'LIMIT', 0, 1)[1]
  if not member then break end
  local group = string.sub(member, 1, #member - ID_LENGTH - PLACE_DIGITS - 2)
  if is_lock(group) and held_count(group) == 0 then advance(group) end
  from = '(' .. group .. '\1'
  if group == '' then break end
end
