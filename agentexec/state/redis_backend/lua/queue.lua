-- Prefix of every script of a queue. The state of a task is the set that contains it: HIGH or LOW (ready, scored by
-- the time at which it became ready), DELAYED (scored by its due time) or LEASES (scored by the end of the lease). ENTRY
-- maps each id to its mark: epoch, lane (h or l), a signature if there is one and, while leased, the worker, like
-- "3h.c2ln web-1"; the lane of a task with groups is written as H or L. A task with groups is also in GROUPS (see groups.lua)
-- and, while it waits for one, in no set but in the line of that group. All times are microseconds.
-- Anybody with access may have written any data here. A mark that cannot be read counts as missing, so the reconciler restores
-- the task; an error would end a script halfway.
local HIGH, LOW, DELAYED, ENTRY, LEASES, WAKE, FAIR, TURN_HIGH, TURN_LOW, FLOW, GROUPS, HELD, LINE, PARKED = unpack(KEYS)
local LANES = {h = HIGH, l = LOW}
local MAX_TOKENS = 64
local MAX_LEAD = 3600000000 -- one hour
local MAX_MARK_LENGTH, MAX_EPOCH = 500, 2147483647

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Lua would print a time as 1.7e+15.
local function digits(number)
  return string.format('%.0f', number)
end

-- Returns epoch, lane, worker, signature, and true for a task with groups. Returns nothing for an invalid mark, or an epoch
-- that is too large for the column of the record.
local function parse(mark)
  if not mark or #mark > MAX_MARK_LENGTH then return end
  local epoch, lane, signature, worker = string.match(mark, '^(%d+)([hlHL])%.?([%w_-]*) ?(.*)$')
  if not epoch or tonumber(epoch) >= MAX_EPOCH then return end
  local small = string.lower(lane)
  return tonumber(epoch), small, worker, signature, small ~= lane
end

local function write(epoch, lane, signature, worker, grouped)
  local mark = digits(epoch) .. (grouped and string.upper(lane) or lane)
  if signature ~= '' then mark = mark .. '.' .. signature end
  if worker then mark = mark .. ' ' .. worker end
  return mark
end

-- Tasks with a fairness key are ready in FAIR, all with score 0, so that they are in the order of the members: lane, hash of
-- the key, place behind those of the same key, step (one turn by the weight, in millionths) and id. TURN_HIGH and TURN_LOW
-- hold the keys that have ready tasks, scored by their turns. FLOW maps each id to hash, step and, if it was ready, place;
-- its fields h and l are the turn of the task that was claimed last, and that of the tasks without a key.
local TURNS = {h = TURN_HIGH, l = TURN_LOW}
local TURN, MAX_STEP, MAX_TURN = 1000000, 1000000000, 2 ^ 50

-- Returns nothing for what does not tell the hash and the step of a key.
local function parse_flow(text)
  if not text or (#text ~= 26 and #text ~= 42) or string.find(text, '[^0-9a-f]') then return end
  if string.find(text, '%a', 17) then return end
  return string.sub(text, 1, 16), string.sub(text, 17, 26), string.sub(text, 27)
end

local function member_of(lane, flow, place, step, id)
  return lane .. flow .. place .. step .. id
end

local function id_of(member)
  return string.sub(member, 44)
end

local function step_of(member)
  return math.min(math.max(tonumber(string.sub(member, 34, 43)) or TURN, 1), MAX_STEP)
end

-- Returns the first or last tasks of a key; REV reverses the order.
local function of_flow(lane, flow, count, reverse)
  local from, to = '[' .. lane .. flow, '(' .. lane .. flow .. 'g'
  if reverse then return redis.call('ZRANGE', FAIR, to, from, 'BYLEX', 'REV', 'LIMIT', 0, count) end
  return redis.call('ZRANGE', FAIR, from, to, 'BYLEX', 'LIMIT', 0, count)
end

-- Returns the current turn of a lane and that of the tasks without a key. Every key is at most one step of the lowest weight
-- ahead, or 1 behind for a task at the front. Where that is not so, or turns have become too high to add to, all start again.
local function current_turns(lane)
  local ring = TURNS[lane]
  local head = tonumber(redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES')[2])
  if not head then return 0, 0 end
  local now, plain = string.match(redis.call('HGET', FLOW, lane) or '', '^(%d+) (%d+)$')
  now, plain = tonumber(now), tonumber(plain)
  local tail = tonumber(redis.call('ZRANGE', ring, -1, -1, 'WITHSCORES')[2])
  if now and now <= MAX_TURN and head >= now - 1 and tail <= now + MAX_STEP then return now, math.min(plain, now) end
  local keys = redis.call('ZRANGE', ring, 0, -1)
  for _, key in ipairs(keys) do redis.call('ZADD', ring, 0, key) end
  return 0, 0
end

local function set_turns(lane, now, plain)
  if redis.call('EXISTS', TURNS[lane]) == 1 then
    redis.call('HSET', FLOW, lane, digits(now) .. ' ' .. digits(plain))
  else
    redis.call('HDEL', FLOW, lane)
  end
end

-- Makes tasks ready, each given by lane, hash, step, id and perhaps its place, otherwise behind those of the same key.
local function join_flows(tasks, moment)
  if #tasks == 0 then return end
  local members, flows, last, turns = {}, {}, {}, {}
  for _, task in ipairs(tasks) do
    local lane, flow, step, id = unpack(task)
    local name = lane .. flow
    if not last[name] then
      local newest = tonumber(string.sub(of_flow(lane, flow, 1, true)[1] or '', 18, 33)) or 0
      if newest > moment + MAX_LEAD then newest = 0 end
      last[name] = math.max(moment, newest)
      if not redis.call('ZSCORE', TURNS[lane], flow) then
        if not turns[lane] then
          local now, plain = current_turns(lane)
          turns[lane] = {now, plain}
        end
        -- Before the next tasks of the keys that have had this turn or still have it.
        redis.call('ZADD', TURNS[lane], digits(turns[lane][1] + math.max(tonumber(step), 1) - 1), flow)
      end
    end
    if not task[5] then last[name] = last[name] + 1 end
    local place = string.format('%016.0f', task[5] or last[name])
    members[#members + 1] = 0
    members[#members + 1] = member_of(lane, flow, place, step, id)
    flows[#flows + 1] = id
    flows[#flows + 1] = flow .. step .. place
  end
  redis.call('ZADD', FAIR, unpack(members))
  redis.call('HSET', FLOW, unpack(flows))
  for lane, now in pairs(turns) do set_turns(lane, now[1], now[2]) end
end

-- Takes tasks out of FAIR, wherever they are there.
local function leave_flows(ids)
  local members = {}
  for i, text in ipairs(redis.call('HMGET', FLOW, unpack(ids))) do
    local flow, step, place = parse_flow(text)
    if flow and place ~= '' then
      members[#members + 1] = member_of('h', flow, place, step, ids[i])
      members[#members + 1] = member_of('l', flow, place, step, ids[i])
    end
  end
  if #members > 0 then redis.call('ZREM', FAIR, unpack(members)) end
end

-- Returns the set that contains a task, and its score there.
local function find(id, lane, owner, grouped)
  local sets = owner == '' and {LANES[lane], DELAYED, LEASES} or {LEASES, HIGH, LOW, DELAYED}
  for _, set in ipairs(sets) do
    local score = redis.call('ZSCORE', set, id)
    if score then return set, tonumber(score) end
  end
  local flow, step, place = parse_flow(redis.call('HGET', FLOW, id))
  if flow and redis.call('ZSCORE', FAIR, member_of(lane, flow, place, step, id)) then
    -- A key without a turn would wait forever, so its tasks count as missing.
    if redis.call('ZSCORE', TURNS[lane], flow) then return FAIR, 0 end
  end
  local waiting = grouped and redis.call('HGET', PARKED, id)
  if waiting and redis.call('ZSCORE', LINE, waiting) then return LINE, 0 end
end

local function is_id(member)
  return #member == 32 and not string.find(member, '[^0-9a-f]')
end

-- Each token wakes one waiting worker. The next claim that finds no task removes unused tokens.
local function wake(count)
  local tokens = {}
  for i = 1, math.min(count, MAX_TOKENS) do tokens[i] = '1' end
  if #tokens > 0 then
    redis.call('RPUSH', WAKE, unpack(tokens))
    redis.call('LTRIM', WAKE, 0, MAX_TOKENS - 1)
  end
end

local function first_due()
  return tonumber(redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2])
end
