-- ARGV: ids. Returns the positions of those that the index does not know: without a mark, or with a mark but in no set,
-- so that no worker would ever claim the task. Such marks are removed.
local reply, stray = {}, {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ARGV))) do
  local known, lane, owner, _, grouped = parse(mark)
  if not (known and find(ARGV[i], lane, owner, grouped)) then
    reply[#reply + 1] = i
    if mark then stray[#stray + 1] = ARGV[i] end
  end
end
if #stray > 0 then redis.call('HDEL', ENTRY, unpack(stray)) end
return reply
