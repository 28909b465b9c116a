-- ARGV: ids. Removes the tasks, and returns id and worker of each leased one.
local reply, members = {}, {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ARGV))) do
  local known, _, owner, _, grouped = parse(mark)
  -- A mark that cannot be read may have hidden groups.
  if grouped or (mark and not known) then members[#members + 1] = ARGV[i] end
  if owner and owner ~= '' then
    reply[#reply + 1] = ARGV[i]
    reply[#reply + 1] = owner
  end
end
leave_flows(ARGV)
redis.call('HDEL', ENTRY, unpack(ARGV))
redis.call('HDEL', FLOW, unpack(ARGV))
for _, set in ipairs({HIGH, LOW, DELAYED, LEASES}) do redis.call('ZREM', set, unpack(ARGV)) end
for _, id in ipairs(members) do leave(id) end
return reply
