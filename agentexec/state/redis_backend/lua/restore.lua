-- ARGV: length of the lease, then id, lane, epoch, signature and flow of each task. Tasks without an entry are leased to nobody.
local expires_at = digits(now() + ARGV[1])
local ids = {}
for i = 2, #ARGV, 5 do ids[#ids + 1] = ARGV[i] end
local marks, leases, flows = {}, {}, {}
for i, known in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  if not parse(known) then
    marks[#marks + 1] = ids[i]
    marks[#marks + 1] = write(ARGV[5 * i - 1], ARGV[5 * i - 2], ARGV[5 * i])
    leases[#leases + 1] = expires_at
    leases[#leases + 1] = ids[i]
    if parse_flow(ARGV[5 * i + 1]) then
      flows[#flows + 1] = ids[i]
      flows[#flows + 1] = ARGV[5 * i + 1]
    end
  end
end
if #marks == 0 then return 0 end
redis.call('HSET', ENTRY, unpack(marks))
if #flows > 0 then redis.call('HSET', FLOW, unpack(flows)) end
return redis.call('ZADD', LEASES, unpack(leases))
