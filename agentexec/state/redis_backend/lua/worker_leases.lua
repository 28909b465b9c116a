-- ARGV: worker. Returns id, epoch and signature of each of its leases. Reads every lease of the queue: there are as many
-- as running tasks, and worker processes rarely crash.
local reply = {}
local ids = redis.call('ZRANGE', LEASES, 0, -1)
for start = 1, #ids, 1000 do
  local chunk = {unpack(ids, start, math.min(start + 999, #ids))}
  for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(chunk))) do
    local epoch, _, owner, signature = parse(mark)
    if owner == ARGV[1] and is_id(chunk[i]) then
      reply[#reply + 1] = chunk[i]
      reply[#reply + 1] = epoch
      reply[#reply + 1] = signature
    end
  end
end
return reply
