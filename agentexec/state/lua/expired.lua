-- ARGV: most leases. Returns id and epoch of each whose time has passed, oldest first.
local ids = redis.call('ZRANGEBYSCORE', LEASES, '-inf', digits(now()), 'LIMIT', 0, ARGV[1])
local reply = {}
if #ids == 0 then return reply end
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  if mark then
    reply[#reply + 1] = ids[i]
    reply[#reply + 1] = (parse(mark))
  end
end
return reply
