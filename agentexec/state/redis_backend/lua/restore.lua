-- ARGV: length of the lease, then id, lane, epoch and signature of each task. Tasks without an entry are leased to nobody.
local expires_at = digits(now() + ARGV[1])
local ids = {}
for i = 2, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
local marks, leases = {}, {}
for i, known in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  if not parse(known) then
    marks[#marks + 1] = ids[i]
    marks[#marks + 1] = write(ARGV[4 * i], ARGV[4 * i - 1], ARGV[4 * i + 1])
    leases[#leases + 1] = expires_at
    leases[#leases + 1] = ids[i]
  end
end
if #marks == 0 then return 0 end
redis.call('HSET', ENTRY, unpack(marks))
return redis.call('ZADD', LEASES, unpack(leases))
