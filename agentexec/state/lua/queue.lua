-- Put before every script of a queue. The state of a task is the set it stands in: HIGH or LOW (ready, scored by
-- when it became so), DELAYED (by when it is due) or LEASES (by when they lapse). ENTRY maps each id to its mark:
-- epoch, lane (h or l) and, while leased, the worker: "3h web-1". All moments are microseconds.
local HIGH, LOW, DELAYED, ENTRY, LEASES, WAKE = unpack(KEYS)
local LANES = {h = HIGH, l = LOW}
local MOST_TOKENS = 64

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Lua would print a moment as 1.7e+15.
local function digits(number)
  return string.format('%.0f', number)
end

local function parse(mark)
  local epoch, lane, worker = string.match(mark, '^(%d+)(%a) ?(.*)$')
  return tonumber(epoch), lane, worker
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
