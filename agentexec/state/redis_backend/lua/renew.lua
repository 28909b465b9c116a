-- ARGV: worker, lease span, then id and epoch of each lease. Returns the ids taken by others, and those not known.
local worker, lapse = ARGV[1], digits(now() + ARGV[2])
local ids = {}
for i = 3, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end

local taken, missing, marks, leases, ours, strays = {}, {}, {}, {}, {}, {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  local id, epoch = ids[i], tonumber(ARGV[2 * i + 2])
  local known, lane, owner, signature = parse(mark)
  if not known then
    missing[#missing + 1] = id
  else
    -- A server that came back with an old snapshot may know less than the lease, or have given its epoch out again.
    if known > epoch or (known == epoch and owner ~= worker and owner ~= '') then
      taken[#taken + 1] = id
    else
      ours[#ours + 1] = id
      leases[#leases + 1] = lapse
      leases[#leases + 1] = id
      if owner ~= worker or known ~= epoch then
        strays[#strays + 1] = id
        marks[#marks + 1] = id
        marks[#marks + 1] = write(epoch, lane, signature, worker)
      end
    end
  end
end
if #ours > 0 then
  -- Removed first: a full server refuses a script that begins by adding, and heartbeats must go on.
  redis.call('ZREM', LEASES, unpack(ours))
  redis.call('ZADD', LEASES, unpack(leases))
end
if #strays > 0 then
  -- Given back after they expired, but not claimed since: no longer to be had.
  redis.call('ZREM', HIGH, unpack(strays))
  redis.call('ZREM', LOW, unpack(strays))
  redis.call('ZREM', DELAYED, unpack(strays))
  redis.call('HSET', ENTRY, unpack(marks))
end
return {taken, missing}
