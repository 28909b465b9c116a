-- ARGV: id, lane, time until it is due (or minus the moment since which it is ready), epoch, signature, flow, and groups of each task: names after - (or after + if it has its lock
-- already), or nothing. Tasks that have an entry are left as they are.
local moment = now()
local ids = {}
for i = 1, #ARGV, 7 do ids[#ids + 1] = ARGV[i] end

local fresh, marks, delayed, fair, flows = 0, {}, {}, {}, {}
local places = {h = {}, l = {}}
local last = {}
for name, lane in pairs(LANES) do
  local newest = tonumber(redis.call('ZRANGE', lane, -1, -1, 'WITHSCORES')[2]) or 0
  -- A score far ahead is not ours, and adding 1 to it may change nothing.
  if newest > moment + MAX_LEAD then newest = 0 end
  last[name] = math.max(moment, newest)
end
local seen = {}
for i, known in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  local id, lane, wait, epoch, signature, text, groups = unpack(ARGV, 7 * i - 6, 7 * i)
  local flow, step = parse_flow(text)
  if not parse(known) and not seen[id] then
    seen[id] = true
    fresh = fresh + 1
    marks[#marks + 1] = id
    marks[#marks + 1] = write(epoch, lane, signature, nil, groups ~= '')
    if groups ~= '' then join(id, string.sub(groups, 2), string.sub(groups, 1, 1) == '+') end
    if tonumber(wait) > 0 then
      delayed[#delayed + 1] = digits(moment + tonumber(wait))
      delayed[#delayed + 1] = id
      if flow then
        flows[#flows + 1] = id
        flows[#flows + 1] = text
      end
    elseif flow then
      fair[#fair + 1] = {lane, flow, step, id, tonumber(wait) < 0 and math.min(-tonumber(wait), moment)}
    elseif tonumber(wait) < 0 then
      local place = places[lane]
      place[#place + 1] = digits(math.min(-tonumber(wait), moment))
      place[#place + 1] = id
    else
      -- Scored 1 above the last task, so tasks pushed together keep their order.
      last[lane] = last[lane] + 1
      local place = places[lane]
      place[#place + 1] = digits(last[lane])
      place[#place + 1] = id
    end
  end
end
if fresh == 0 then return 0 end
redis.call('HSET', ENTRY, unpack(marks))
if #fair > 0 then
  local stale = {}
  for i, task in ipairs(fair) do stale[i] = task[4] end
  leave_flows(stale)
  join_flows(fair, moment)
end
if #flows > 0 then redis.call('HSET', FLOW, unpack(flows)) end
if #delayed > 0 then redis.call('ZADD', DELAYED, unpack(delayed)) end
for name, place in pairs(places) do
  if #place > 0 then redis.call('ZADD', LANES[name], unpack(place)) end
end
wake(fresh)
return fresh
