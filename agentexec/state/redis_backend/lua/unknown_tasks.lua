-- ARGV: ids. Returns the positions of those that the index does not know: without a mark, or with a mark but in no set,
-- so that no worker would ever claim the task. Such marks are removed.
local reply, stray = {}, {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ARGV))) do
  local id = ARGV[i]
  local known, lane, owner = parse(mark)
  local sets = owner == '' and {LANES[lane], DELAYED, LEASES} or {LEASES, HIGH, LOW, DELAYED}
  local found = false
  if known then
    for _, set in ipairs(sets) do
      found = found or redis.call('ZSCORE', set, id)
    end
  end
  if not found then
    reply[#reply + 1] = i
    if mark then stray[#stray + 1] = id end
  end
end
if #stray > 0 then redis.call('HDEL', ENTRY, unpack(stray)) end
return reply
