-- Put before every script of a queue. The state of a task is the set it stands in: HIGH or LOW (ready, scored by
-- when it became so), DELAYED (by when it is due) or LEASES (by when they lapse). ENTRY maps each id to its mark:
-- epoch, lane (h or l), a signature if there is one and, while leased, the worker: "3h.c2ln web-1". All moments are
-- microseconds. Whoever can write here may have written anything: a mark that cannot be read counts as none, so that the
-- reconciler finds the task missing, and never as an error, with which a script would end halfway.
local HIGH, LOW, DELAYED, ENTRY, LEASES, WAKE = unpack(KEYS)
local LANES = {h = HIGH, l = LOW}
local MOST_TOKENS = 64
local MOST_MARK, MOST_EPOCH = 500, 2147483647

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Lua would print a moment as 1.7e+15.
local function digits(number)
  return string.format('%.0f', number)
end

-- Returns nothing for what is no mark, or has an epoch that the record's column does not take.
local function parse(mark)
  if not mark or #mark > MOST_MARK then return end
  local epoch, lane, signature, worker = string.match(mark, '^(%d+)([hl])%.?([%w_-]*) ?(.*)$')
  if not epoch or tonumber(epoch) >= MOST_EPOCH then return end
  return tonumber(epoch), lane, worker, signature
end

local function write(epoch, lane, signature, worker)
  local mark = digits(epoch) .. lane
  if signature ~= '' then mark = mark .. '.' .. signature end
  if worker then mark = mark .. ' ' .. worker end
  return mark
end

local function is_id(member)
  return #member == 32 and not string.find(member, '[^0-9a-f]')
end

-- Each token lets one waiting worker look; a token that nobody needs is dropped by the next claim that finds nothing.
local function wake(count)
  local tokens = {}
  for i = 1, math.min(count, MOST_TOKENS) do tokens[i] = '1' end
  if #tokens > 0 then
    redis.call('RPUSH', WAKE, unpack(tokens))
    redis.call('LTRIM', WAKE, 0, MOST_TOKENS - 1)
  end
end

local function first_due()
  return tonumber(redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2])
end
