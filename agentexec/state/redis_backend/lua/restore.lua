-- ARGV: length of the lease, then id, lane, epoch, signature, flow and groups (as in push.lua) of each task. Tasks without an
-- entry are leased to nobody.
local expires_at = digits(now() + ARGV[1])
local ids = {}
for i = 2, #ARGV, 6 do ids[#ids + 1] = ARGV[i] end
local marks, leases, flows = {}, {}, {}
for i, known in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  if not parse(known) then
    local _, lane, epoch, signature, flow, groups = unpack(ARGV, 6 * i - 4, 6 * i + 1)
    marks[#marks + 1] = ids[i]
    marks[#marks + 1] = write(epoch, lane, signature, nil, groups ~= '')
    leases[#leases + 1] = expires_at
    leases[#leases + 1] = ids[i]
    if parse_flow(flow) then
      flows[#flows + 1] = ids[i]
      flows[#flows + 1] = flow
    end
    if groups ~= '' then
      join(ids[i], string.sub(groups, 2))
      hold(ids[i], groups_of(ids[i]))
    end
  end
end
if #marks == 0 then return 0 end
redis.call('HSET', ENTRY, unpack(marks))
if #flows > 0 then redis.call('HSET', FLOW, unpack(flows)) end
return redis.call('ZADD', LEASES, unpack(leases))
