-- ARGV: worker, maximum number of tasks, number of them from LOW first, length of the lease.
-- Returns the time until the next delayed task is due (-1: no task is delayed), then id, epoch and signature of each task.
local worker, limit, low, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local moment = now()

-- Delayed tasks that are due become ready, ordered by the time at which they were due. As in all scripts, commands that
-- free memory come first: on a full server, a script that has already written may go on, so work still drains.
local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', digits(moment), 'WITHSCORES', 'LIMIT', 0, math.max(limit, 100))
if #due > 0 then
  local ids, places = {}, {h = {}, l = {}}
  for i = 1, #due, 2 do ids[#ids + 1] = due[i] end
  redis.call('ZREM', DELAYED, unpack(ids))
  for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
    local _, lane = parse(mark)
    if lane then
      local place = places[lane]
      place[#place + 1] = due[2 * i]
      place[#place + 1] = ids[i]
    end
  end
  for name, place in pairs(places) do
    if #place > 0 then redis.call('ZADD', LANES[name], unpack(place)) end
  end
end

local ids = {}
local function take(lane, count)
  if count <= 0 then return end
  local popped = redis.call('ZPOPMIN', lane, count)
  for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
end
take(LOW, math.min(low, limit))
take(HIGH, limit - #ids)
take(LOW, limit - #ids)

local next_due = first_due()
local reply = {next_due and math.min(math.max(next_due - moment, 0), 1e15) or -1}
if #ids > 0 then
  local expires_at = digits(moment + lease)
  local marks, leases, bad = {}, {}, {}
  for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
    local epoch, lane, _, signature = parse(mark)
    if epoch and is_id(ids[i]) then
      epoch = epoch + 1
      marks[#marks + 1] = ids[i]
      marks[#marks + 1] = write(epoch, lane, signature, worker)
      leases[#leases + 1] = expires_at
      leases[#leases + 1] = ids[i]
      reply[#reply + 1] = ids[i]
      reply[#reply + 1] = epoch
      reply[#reply + 1] = signature
    elseif mark then
      bad[#bad + 1] = ids[i]
    end
  end
  if #bad > 0 then redis.call('HDEL', ENTRY, unpack(bad)) end
  if #marks > 0 then
    redis.call('HSET', ENTRY, unpack(marks))
    redis.call('ZADD', LEASES, unpack(leases))
  end
end

if #ids < limit then
  -- No ready task is left, and this worker has free slots and waits for the delayed ones.
  redis.call('DEL', WAKE)
elseif redis.call('EXISTS', WAKE) == 0 and (next_due or redis.call('EXISTS', HIGH, LOW) > 0) then
  wake(1)
end
return reply
