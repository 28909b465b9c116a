-- ARGV: ids. Removes the tasks, and returns id and worker of each leased one.
local reply = {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ARGV))) do
  local _, _, owner = parse(mark)
  if owner and owner ~= '' then
    reply[#reply + 1] = ARGV[i]
    reply[#reply + 1] = owner
  end
end
leave_flows(ARGV)
redis.call('HDEL', ENTRY, unpack(ARGV))
redis.call('HDEL', FLOW, unpack(ARGV))
for _, set in ipairs({HIGH, LOW, DELAYED, LEASES}) do redis.call('ZREM', set, unpack(ARGV)) end
return reply
