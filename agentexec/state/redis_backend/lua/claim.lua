-- ARGV: worker, maximum number of tasks, number of them from LOW first, length of the lease, then name and limit of each task
-- whose concurrency is limited.
-- Returns the time until the next delayed task is due (-1: no task is delayed), then id, epoch and signature of each task.
local worker, limit, low, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local MAX_PARKED = 300
local moment = now()

-- Delayed tasks that are due become ready, ordered by the time at which they were due. As in all scripts, commands that
-- free memory come first: on a full server, a script that has already written may go on, so work still drains.
local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', digits(moment), 'WITHSCORES', 'LIMIT', 0, 1000)
if #due > 0 then
  local ids, places, fair = {}, {h = {}, l = {}}, {}
  for i = 1, #due, 2 do ids[#ids + 1] = due[i] end
  redis.call('ZREM', DELAYED, unpack(ids))
  local flows = redis.call('EXISTS', FLOW) == 1 and redis.call('HMGET', FLOW, unpack(ids)) or {}
  for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
    local _, lane = parse(mark)
    local flow, step = parse_flow(flows[i])
    if lane and flow then
      fair[#fair + 1] = {lane, flow, step, ids[i]}
    elseif lane then
      local place = places[lane]
      place[#place + 1] = due[2 * i]
      place[#place + 1] = ids[i]
    end
  end
  for name, place in pairs(places) do
    if #place > 0 then redis.call('ZADD', LANES[name], unpack(place)) end
  end
  join_flows(fair, moment)
end

local ids, is_fair, places = {}, {}, {}
local function take_plain(lane, count)
  local popped = redis.call('ZPOPMIN', LANES[lane], count)
  for i = 1, #popped, 2 do
    ids[#ids + 1] = popped[i]
    places[#ids] = popped[i + 1]
  end
  return #popped / 2
end

-- Takes the first task of the key whose turn is next, and gives that key its next turn.
local function take_fair(lane, flow, turn)
  local first, second = unpack(of_flow(lane, flow, 2))
  if first then
    redis.call('ZREM', FAIR, first)
    ids[#ids + 1] = id_of(first)
    is_fair[#ids] = true
    places[#ids] = string.sub(first, 18, 33)
  end
  if second then
    redis.call('ZADD', TURNS[lane], digits(turn + step_of(second)), flow)
  else
    redis.call('ZREM', TURNS[lane], flow)
  end
end

-- The tasks without a key are those of one more key of weight 1.
local function take_turns(lane, count)
  local now, plain = current_turns(lane)
  local wanted, has_plain = #ids + count, redis.call('EXISTS', LANES[lane]) == 1
  while #ids < wanted do
    local flow, turn = unpack(redis.call('ZRANGE', TURNS[lane], 0, 0, 'WITHSCORES'))
    if not flow then break end
    turn = tonumber(turn)
    local next_plain = math.max(plain + TURN, now)
    if has_plain and next_plain <= turn then
      has_plain = take_plain(lane, 1) == 1
      if has_plain then now, plain = next_plain, next_plain end
    else
      now = math.max(now, turn)
      take_fair(lane, flow, now)
    end
  end
  set_turns(lane, now, plain)
end

local function take(lane, count)
  local wanted = #ids + count
  if count > 0 and redis.call('EXISTS', TURNS[lane]) == 1 then take_turns(lane, count) end
  if #ids < wanted then take_plain(lane, wanted - #ids) end
end
local limits, full, admitted = {}, {}, {}
for i = 5, #ARGV, 2 do limits[ARGV[i]] = tonumber(ARGV[i + 1]) end

-- An index that was emptied does not know who has a lock, nor who comes first: until it is complete, no lock is given away.
local complete
local function is_complete()
  if complete == nil then complete = redis.call('EXISTS', (string.gsub(WAKE, 'wake$', 'intact'))) == 1 end
  return complete
end

-- Returns true if the groups of a task admit it. If not, it waits for the first one that does not, and has those before it.
local function pass(id, lane, score)
  local groups = groups_of(id)
  for _, group in ipairs(groups) do
    if not redis.call('ZSCORE', HELD, group .. '\0' .. id) then
      if is_lock(group) and not is_complete() then
        park(id, group, lane, score)
        return false
      end
      local most = is_lock(group) and 1 or limits[string.match(group, '^limit:([^\31]*)')]
      local count = most and held_count(group)
      if most and count >= most and (full[group] or not drop_strays(group, admitted)) then
        full[group] = true
        park(id, group, lane, score)
        return false
      end
      hold(id, {group})
      -- A limit that was raised, or removed, lets more tasks in.
      if not most or count + 1 < most then advance(group) end
    end
  end
  admitted[id] = true
  return #groups > 0
end

local reply, bad, twice, left, parked, has_groups = {-1}, {}, {}, limit, 0, false
local seen = {}
local expires_at = digits(moment + lease)
local from_low = math.min(low, limit)
local exhausted, again
repeat
  ids, is_fair, places, again = {}, {}, {}, false
  take('l', math.min(from_low, left))
  local first = #ids
  take('h', left - #ids)
  take('l', left - #ids)
  exhausted = #ids < left
  local marks, leases = {}, {}
  for i, mark in ipairs(#ids > 0 and redis.call('HMGET', ENTRY, unpack(ids)) or {}) do
    local epoch, lane, owner, signature, grouped = parse(mark)
    if seen[ids[i]] or epoch and owner ~= '' and (is_fair[i] or redis.call('ZSCORE', LEASES, ids[i])) then
      -- A worker has it already: it was in two sets. One of an earlier release pushes a task without its key.
      mark = nil
    elseif not (epoch and is_id(ids[i])) then
      if mark then bad[#bad + 1] = ids[i] end
    elseif grouped and not pass(ids[i], lane, tonumber(places[i]) or moment) then
      parked, again = parked + 1, true
      if redis.call('HEXISTS', PARKED, ids[i]) == 0 then bad[#bad + 1] = ids[i] end
    else
      has_groups = has_groups or grouped
      if is_fair[i] then twice[#twice + 1] = ids[i] end
      seen[ids[i]] = true
      epoch = epoch + 1
      marks[#marks + 1] = ids[i]
      marks[#marks + 1] = write(epoch, lane, signature, worker, grouped)
      leases[#leases + 1] = expires_at
      leases[#leases + 1] = ids[i]
      reply[#reply + 1] = ids[i]
      reply[#reply + 1] = epoch
      reply[#reply + 1] = signature
      left = left - 1
      if i <= first then from_low = from_low - 1 end
    end
  end
  if #marks > 0 then
    redis.call('HSET', ENTRY, unpack(marks))
    redis.call('ZADD', LEASES, unpack(leases))
  end
until left == 0 or exhausted or not again or parked >= MAX_PARKED
for i = 1, #bad, 1000 do redis.call('HDEL', ENTRY, unpack(bad, i, math.min(i + 999, #bad))) end
if #twice > 0 then
  redis.call('ZREM', HIGH, unpack(twice))
  redis.call('ZREM', LOW, unpack(twice))
end

local next_due = first_due()
if next_due then reply[1] = math.min(math.max(next_due - moment, 0), 1e15) end
if exhausted and not (has_groups and redis.call('EXISTS', HIGH, LOW, FAIR) > 0) then
  -- No ready task is left, and this worker has free slots and waits for the delayed ones.
  redis.call('DEL', WAKE)
elseif redis.call('EXISTS', WAKE) == 0 and (next_due or redis.call('EXISTS', HIGH, LOW, FAIR) > 0) then
  wake(1)
end
return reply
