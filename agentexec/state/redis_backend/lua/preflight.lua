-- KEYS: a scratch key, empty before and after. ARGV: 1 to leave a list of one element there. Calls every command that the
-- other scripts call, and returns name and error of each that the server refuses.
local KEY = KEYS[1]
local refused = {}

local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    refused[#refused + 1] = command
    refused[#refused + 1] = reply.err
  end
end

try('TIME')
try('DEL', KEY)
try('EXISTS', KEY)
try('SET', KEY, '1', 'PX', 60000)
try('GET', KEY)
try('PTTL', KEY)
try('TTL', KEY)
try('TYPE', KEY)
try('DEL', KEY)
try('HSET', KEY, 'field', '1')
try('HGET', KEY, 'field')
try('HMGET', KEY, 'field')
try('HSCAN', KEY, 0)
try('HEXISTS', KEY, 'field')
try('HDEL', KEY, 'field')
try('ZADD', KEY, 1, 'member')
try('ZCARD', KEY)
try('ZCOUNT', KEY, '-inf', '+inf')
try('ZSCORE', KEY, 'member')
try('ZSCAN', KEY, 0)
try('ZRANGE', KEY, 0, -1)
try('ZRANGEBYSCORE', KEY, '-inf', '+inf')
try('ZREMRANGEBYSCORE', KEY, '-inf', '+inf')
try('ZRANGEBYLEX', KEY, '-', '+')
try('ZLEXCOUNT', KEY, '-', '+')
try('ZREM', KEY, 'member')
try('ZPOPMIN', KEY)
try('XADD', KEY, '1-0', 'e', '')
try('XREVRANGE', KEY, '+', '-')
try('DEL', KEY)
try('SMEMBERS', KEY)
try('RPUSH', KEY, '1')
try('LTRIM', KEY, 0, 0)
try('EXPIRE', KEY, 60)
if ARGV[1] ~= '1' then try('DEL', KEY) end
return refused
