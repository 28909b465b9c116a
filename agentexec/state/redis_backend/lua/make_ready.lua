-- ARGV: ids. Delayed tasks become ready now, behind the tasks that are ready; other tasks stay as they are.
local moment, count, fair = now(), 0, {}
local flows = redis.call('HMGET', FLOW, unpack(ARGV))
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ARGV))) do
  local _, name = parse(mark)
  if name and redis.call('ZREM', DELAYED, ARGV[i]) == 1 then
    local flow, step = parse_flow(flows[i])
    if flow then
      fair[#fair + 1] = {name, flow, step, ARGV[i]}
    else
      redis.call('ZADD', LANES[name], digits(moment), ARGV[i])
    end
    count = count + 1
  end
end
join_flows(fair, moment)
wake(count)
return count
