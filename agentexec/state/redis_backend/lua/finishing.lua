-- Removes the tasks that no higher epoch holds, given as id and epoch of each lease, and returns their number.
local function finish(leases)
  local ids, gone, waiting, members = {}, {}, {}, {}
  for i = 1, #leases, 2 do ids[#ids + 1] = leases[i] end
  for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
    local known, _, owner, _, grouped = parse(mark)
    if mark and (not known or known <= tonumber(leases[2 * i])) then
      gone[#gone + 1] = ids[i]
      if owner == '' then waiting[#waiting + 1] = ids[i] end
      if grouped then members[#members + 1] = ids[i] end
    end
  end
  if #gone == 0 then return 0 end
  redis.call('HDEL', ENTRY, unpack(gone))
  redis.call('ZREM', LEASES, unpack(gone))
  if #waiting > 0 then
    redis.call('ZREM', HIGH, unpack(waiting))
    redis.call('ZREM', LOW, unpack(waiting))
    redis.call('ZREM', DELAYED, unpack(waiting))
    leave_flows(waiting)
  end
  redis.call('HDEL', FLOW, unpack(gone))
  for _, id in ipairs(members) do leave(id) end
  return #gone
end
