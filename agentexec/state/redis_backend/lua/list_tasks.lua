-- ARGV: place in the walk (1 ENTRY, 2 DELAYED, 3 LEASES, 4 FAIR, 5 FLOW), cursor of the key there, number of fields or members to look at.
-- Returns the next place and cursor (place 0 at the end), the number of removed ones, and the ids of ENTRY. Removed are
-- fields and members that are no ids, and those without a readable mark: no other script would ever find them.
local place, reply, bad = tonumber(ARGV[1]), {}, {}
local key = ({ENTRY, DELAYED, LEASES, FAIR, FLOW})[place]
local found
if place == 1 or place == 5 then
  found = redis.call('HSCAN', key, ARGV[2], 'COUNT', ARGV[3])
else
  found = redis.call('ZSCAN', key, ARGV[2], 'COUNT', ARGV[3])
end
local cursor, items = found[1], found[2]
for i = 1, #items, 2 do
  local item = items[i]
  local id = place == 4 and id_of(item) or item
  local mark = items[i + 1]
  if place > 1 then mark = is_id(id) and redis.call('HGET', ENTRY, id) end
  if is_id(id) and parse(mark) then
    if place == 1 then reply[#reply + 1] = id end
  elseif not (place == 5 and LANES[item]) then
    bad[#bad + 1] = item
  end
end
for i = 1, #bad, 1000 do
  local last = math.min(i + 999, #bad)
  if place == 1 or place == 5 then
    redis.call('HDEL', key, unpack(bad, i, last))
  else
    redis.call('ZREM', key, unpack(bad, i, last))
  end
end
if cursor == '0' then place = (place + 1) % 6 end
return {place, cursor, #bad, unpack(reply)}
