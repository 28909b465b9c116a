-- Leases that have expired. Returns the number of removed members, then id, epoch and signature of each one, the oldest first.
local function expired_leases(limit)
  local ids = redis.call('ZRANGEBYSCORE', LEASES, '-inf', digits(now()), 'LIMIT', 0, limit)
  local reply, bad = {0}, {}
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
  -- Entries that cannot be read are removed: they would hide the leases behind them forever.
  if #bad > 0 then
    reply[1] = redis.call('ZREM', LEASES, unpack(bad))
    redis.call('HDEL', ENTRY, unpack(bad))
  end
  return reply
end
