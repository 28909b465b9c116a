-- ARGV: length of a lease, longest time of a task that is left for other workers, greatest lead of an epoch, then id, time
-- until it is due, and epoch of each task by the record. Returns the positions of the tasks that the index does not know (as in
-- unknown_tasks.lua), and of those whose entries cannot follow from the record, by the rules of fits_record in policy.py.
local moment = now()
local lease, leave, max_lead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ids = {}
for i = 4, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end

local function fits(set, score, due, lead)
  if set == LEASES then return lead <= max_lead and score <= moment + 2 * lease end
  if lead < 0 or lead >= max_lead then return false end
  return score <= math.max(due, moment) + 2 * lease + (lead > 0 and leave or 0)
end

local missing, wrong, stray = {}, {}, {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  local due, recorded = moment + tonumber(ARGV[3 * i + 2]), tonumber(ARGV[3 * i + 3])
  local known, lane, owner = parse(mark)
  local set, score
  if known then set, score = find(ids[i], lane, owner) end
  if not set then
    missing[#missing + 1] = i
    if mark then stray[#stray + 1] = ids[i] end
  elseif not fits(set, score, due, known - recorded) then
    wrong[#wrong + 1] = i
  end
end
if #stray > 0 then redis.call('HDEL', ENTRY, unpack(stray)) end
return {missing, wrong}
