-- ARGV: most leases. Returns id, epoch and signature of each whose time has passed, oldest first.
local ids = redis.call('ZRANGEBYSCORE', LEASES, '-inf', digits(now()), 'LIMIT', 0, ARGV[1])
local reply, bad = {}, {}
if #ids == 0 then return reply end
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  local epoch, _, _, signature = parse(mark)
  if epoch and is_id(ids[i]) then
    reply[#reply + 1] = ids[i]
    reply[#reply + 1] = epoch
    reply[#reply + 1] = signature
  else
    bad[#bad + 1] = ids[i]
  end
end
-- Left where they are they would hide those behind them for ever.
if #bad > 0 then
  redis.call('ZREM', LEASES, unpack(bad))
  redis.call('HDEL', ENTRY, unpack(bad))
end
return reply
