-- ARGV: place in the walk (1 ENTRY, 2 DELAYED, 3 LEASES, 4 FAIR, 5 FLOW, 6 GROUPS, 7 PARKED, 8 HELD, 9 LINE), cursor of the key
-- there, number of fields or members to look at.
-- Returns the next place and cursor (place 0 at the end), the number of removed ones, and the ids of ENTRY. Removed are
-- fields and members that are no ids, and those without a readable mark: no other script would ever find them.
local place, reply, bad = tonumber(ARGV[1]), {}, {}
local key = ({ENTRY, DELAYED, LEASES, FAIR, FLOW, GROUPS, PARKED, HELD, LINE})[place]
local is_hash = place == 1 or (place >= 5 and place <= 7)
local found
if is_hash then
  found = redis.call('HSCAN', key, ARGV[2], 'COUNT', ARGV[3])
else
  found = redis.call('ZSCAN', key, ARGV[2], 'COUNT', ARGV[3])
end
local cursor, items = found[1], found[2]

-- Returns true if a member of LINE, or the value of PARKED, belongs to a task that waits there.
local function waits(id, member)
  return redis.call('HGET', PARKED, id) == member and redis.call('ZSCORE', LINE, member)
end

local function is_kept(id, item, value)
  if place == 5 and LANES[item] then return true end
  if not is_id(id) then return false end
  if place == 1 then return parse(value) end
  if not parse(redis.call('HGET', ENTRY, id)) then return false end
  if place == 7 then return waits(id, value) end
  if place == 8 then return belongs(id, string.sub(item, 1, -ID_LENGTH - 2)) end
  return place ~= 9 or waits(id, item)
end

for i = 1, #items, 2 do
  local item = items[i]
  local id = item
  if place == 4 then id = id_of(item) elseif place >= 8 then id = string.sub(item, -ID_LENGTH) end
  if not is_kept(id, item, items[i + 1]) then
    bad[#bad + 1] = item
  elseif place == 1 then
    reply[#reply + 1] = id
  end
end
for i = 1, #bad, 1000 do
  local last = math.min(i + 999, #bad)
  if is_hash then redis.call('HDEL', key, unpack(bad, i, last)) else redis.call('ZREM', key, unpack(bad, i, last)) end
end
if cursor == '0' then place = (place + 1) % 10 end
return {place, cursor, #bad, unpack(reply)}
