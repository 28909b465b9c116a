-- Prefix of the scripts that know groups, after queue.lua. A group is a lock ("lock:KEY": one member, from its first claim to its
-- end) or a limit ("limit:TASK\31KEY": as many members as the workers declare, while they are leased).
-- GROUPS maps each task with groups to their names, HELD has a member group\0id for each task that a group has admitted, and
-- LINE a member group\0lane, place, id for each task that waits for it, both ordered by name. PARKED maps the tasks that wait
-- to their members of LINE. The place is the score in the lane to which the task returns.
local PLACE_DIGITS, ID_LENGTH, MAX_CHECKED = 17, 32, 20

local function split(names)
  local groups = {}
  for name in string.gmatch(names, '[^%z]+') do groups[#groups + 1] = name end
  return groups
end

local function groups_of(id)
  return split(redis.call('HGET', GROUPS, id) or '')
end

local function is_lock(group)
  return string.sub(group, 1, 5) == 'lock:'
end

local function bounds(group)
  return '[' .. group .. '\0', '(' .. group .. '\1'
end

local function held_count(group)
  return redis.call('ZLEXCOUNT', HELD, bounds(group))
end

local function belongs(id, group)
  for _, name in ipairs(groups_of(id)) do
    if name == group then return true end
  end
end

-- Drops members that no such task can be, the first few of them, and returns true if there were any. `admitted`: tasks that are
-- about to be leased.
local function drop_strays(group, admitted)
  local first, last = bounds(group)
  local dropped = false
  for _, member in ipairs(redis.call('ZRANGEBYLEX', HELD, first, last, 'LIMIT', 0, MAX_CHECKED)) do
    local id = string.sub(member, #group + 2)
    local known = parse(redis.call('HGET', ENTRY, id))
    local counts = is_lock(group) or admitted[id] or redis.call('ZSCORE', LEASES, id)
    if not (known and counts and belongs(id, group)) then
      redis.call('ZREM', HELD, member)
      dropped = true
    end
  end
  return dropped
end

local function hold(id, groups)
  for _, group in ipairs(groups) do redis.call('ZADD', HELD, 0, group .. '\0' .. id) end
end

local function park(id, group, lane, score)
  -- A score that no task of ours has would break the order of the line.
  if not (score >= 0 and score < 1e16) then score = now() end
  local member = group .. '\0' .. lane .. string.format('%0' .. PLACE_DIGITS .. '.0f', score) .. id
  redis.call('ZADD', LINE, 0, member)
  redis.call('HSET', PARKED, id, member)
end

local function unpark(id)
  local member = redis.call('HGET', PARKED, id)
  if not member then return false end
  redis.call('ZREM', LINE, member)
  redis.call('HDEL', PARKED, id)
  return true
end

-- Puts a task that waited back into its place in its lane, or before the others of its fairness key that came later: it has had
-- its turn.
local function put_back(id, lane, place)
  local flow, step = parse_flow(redis.call('HGET', FLOW, id))
  if flow then
    local turn, plain = current_turns(lane)
    place = string.format('%016.0f', place)
    redis.call('ZADD', FAIR, 0, member_of(lane, flow, place, step, id))
    redis.call('HSET', FLOW, id, flow .. step .. place)
    redis.call('ZADD', TURNS[lane], digits(turn - 1), flow)
    set_turns(lane, turn, plain)
  else
    redis.call('ZADD', LANES[lane], digits(place), id)
  end
  wake(1)
end

-- Puts the first task that waits for a group back into its lane. What waits there wrongly is dropped.
local function advance(group)
  local first, last = bounds(group)
  for _ = 1, 1000 do
    local member = redis.call('ZRANGEBYLEX', LINE, first, last, 'LIMIT', 0, 1)[1]
    if not member then return end
    redis.call('ZREM', LINE, member)
    local start = #group + 2
    local lane = string.sub(member, start, start)
    local place = tonumber(string.sub(member, start + 1, start + PLACE_DIGITS))
    local id = string.sub(member, start + 1 + PLACE_DIGITS)
    if redis.call('HGET', PARKED, id) == member then
      redis.call('HDEL', PARKED, id)
      if LANES[lane] and place and parse(redis.call('HGET', ENTRY, id)) then return put_back(id, lane, place) end
    end
  end
end

-- Takes a task that is forgotten out of its groups, and lets the next ones in.
local function leave(id)
  local groups = groups_of(id)
  redis.call('HDEL', GROUPS, id)
  local waited = unpark(id)
  for _, group in ipairs(groups) do
    local held = redis.call('ZREM', HELD, group .. '\0' .. id) == 1
    -- A task may also be the next one of a group, in its lane and not claimed yet.
    if (held or not waited) and not (is_lock(group) and held_count(group) > 0) then advance(group) end
  end
end

-- Takes a task whose lease ends out of its limits.
local function leave_limits(id)
  for _, group in ipairs(groups_of(id)) do
    if not is_lock(group) and redis.call('ZREM', HELD, group .. '\0' .. id) == 1 then advance(group) end
  end
end

-- Notes the groups of a new task. `holds`: it has its lock.
local function join(id, names, holds)
  unpark(id)
  redis.call('HSET', GROUPS, id, names)
  for _, group in ipairs(holds and split(names) or {}) do
    if is_lock(group) then hold(id, {group}) end
  end
end
