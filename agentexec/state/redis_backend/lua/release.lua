-- ARGV: id, epoch, delay. Returns 1 if the task is ready or delayed now, 0 if the caller has lost the lease.
local id, epoch, delay = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local mark = redis.call('HGET', ENTRY, id)
local known, name, _, signature, grouped = parse(mark)
if not known or known > epoch then return 0 end
if redis.call('ZREM', LEASES, id) == 0 then return 0 end
redis.call('HSET', ENTRY, id, write(epoch, name, signature, nil, grouped))
if delay > 0 then
  redis.call('ZADD', DELAYED, digits(now() + delay), id)
elseif parse_flow(redis.call('HGET', FLOW, id)) then
  local flow, step = parse_flow(redis.call('HGET', FLOW, id))
  local first = tonumber(string.sub(of_flow(name, flow, 1)[1] or '', 18, 33))
  local place = string.format('%016.0f', first and math.max(first - 1, 0) or now())
  local turn, plain = current_turns(name)
  redis.call('ZADD', FAIR, 0, member_of(name, flow, place, step, id))
  redis.call('HSET', FLOW, id, flow .. step .. place)
  redis.call('ZADD', TURNS[name], digits(turn - 1), flow)
  set_turns(name, turn, plain)
else
  local lane = LANES[name]
  local first = tonumber(redis.call('ZRANGE', lane, 0, 0, 'WITHSCORES')[2])
  redis.call('ZADD', lane, digits(first and first - 1 or now()), id)
end
if grouped then leave_limits(id) end
wake(1)
return 1
