-- Prefix of every script of a queue. The state of a task is the set that contains it: HIGH or LOW (ready, scored by
-- the time at which it became ready), DELAYED (scored by its due time) or LEASES (scored by the end of the lease). ENTRY
-- maps each id to its mark: epoch, lane (h or l), a signature if there is one and, while leased, the worker, like
-- "3h.c2ln web-1". All times are microseconds. Anybody with access may have written any data here. A mark that cannot be
-- read counts as missing, so the reconciler restores the task; an error would end a script halfway.
local HIGH, LOW, DELAYED, ENTRY, LEASES, WAKE = unpack(KEYS)
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

-- Returns nothing for an invalid mark, or an epoch that is too large for the column of the record.
local function parse(mark)
  if not mark or #mark > MAX_MARK_LENGTH then return end
  local epoch, lane, signature, worker = string.match(mark, '^(%d+)([hl])%.?([%w_-]*) ?(.*)$')
  if not epoch or tonumber(epoch) >= MAX_EPOCH then return end
  return tonumber(epoch), lane, worker, signature
end

local function write(epoch, lane, signature, worker)
  local mark = digits(epoch) .. lane
  if signature ~= '' then mark = mark .. '.' .. signature end
  if worker then mark = mark .. ' ' .. worker end
  return mark
end

-- Returns the set that contains a task, and its score there.
local function find(id, lane, owner)
  local sets = owner == '' and {LANES[lane], DELAYED, LEASES} or {LEASES, HIGH, LOW, DELAYED}
  for _, set in ipairs(sets) do
    local score = redis.call('ZSCORE', set, id)
    if score then return set, tonumber(score) end
  end
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
