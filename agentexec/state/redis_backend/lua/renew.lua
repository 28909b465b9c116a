-- ARGV: worker, length of the lease, then id and epoch of each lease. Returns the ids that another worker holds, and the
-- unknown ids.
local worker, expires_at = ARGV[1], digits(now() + ARGV[2])
local ids = {}
for i = 3, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end

local taken, missing, marks, leases, ours, strays, members = {}, {}, {}, {}, {}, {}, {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  local id, epoch = ids[i], tonumber(ARGV[2 * i + 2])
  local known, lane, owner, signature, grouped = parse(mark)
  if not known then
    missing[#missing + 1] = id
  else
    -- A server restored from an old snapshot may know a lower epoch than the lease, or have given out its epoch again.
    if known > epoch or (known == epoch and owner ~= worker and owner ~= '') then
      taken[#taken + 1] = id
    else
      ours[#ours + 1] = id
      leases[#leases + 1] = expires_at
      leases[#leases + 1] = id
      if owner ~= worker or known ~= epoch then
        strays[#strays + 1] = id
        marks[#marks + 1] = id
        marks[#marks + 1] = write(epoch, lane, signature, worker, grouped)
        if grouped then members[#members + 1] = id end
      end
    end
  end
end
if #ours > 0 then
  -- Removed first: a full server refuses a script that starts by adding, and heartbeats must continue.
  redis.call('ZREM', LEASES, unpack(ours))
  redis.call('ZADD', LEASES, unpack(leases))
end
if #strays > 0 then
  -- These tasks went back to the queue when their leases expired, and nobody has claimed them since: take them out.
  redis.call('ZREM', HIGH, unpack(strays))
  redis.call('ZREM', LOW, unpack(strays))
  redis.call('ZREM', DELAYED, unpack(strays))
  leave_flows(strays)
  redis.call('HSET', ENTRY, unpack(marks))
  for _, id in ipairs(members) do
    unpark(id)
    hold(id, groups_of(id))
  end
end
return {taken, missing}
