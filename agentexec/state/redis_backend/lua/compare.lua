-- ARGV: length of a lease, longest time of a task that is left for other workers, greatest lead of an epoch, then id, time
-- until it is due, epoch, and groups (as in push.lua) of each task by the record. Returns the positions of the tasks that the index does not know (as in
-- unknown_tasks.lua), and of those whose entries cannot follow from the record, by the rules of fits_record in policy.py.
-- A task that waits for a group which nobody has goes on.
local moment = now()
local lease, leave, max_lead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ids = {}
for i = 4, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end

local function fits(set, score, due, lead)
  if set == LINE then score = due end
  if set == LEASES then return lead <= max_lead and score <= moment + 2 * lease end
  if lead < 0 or lead >= max_lead then return false end
  return score <= math.max(due, moment) + 2 * lease + (lead > 0 and leave or 0)
end

-- At most one task of a group goes on in each call: the next one follows when it ends.
local advanced = {}
local function go_on(id)
  local member = redis.call('HGET', PARKED, id)
  local group = string.sub(member, 1, #member - ID_LENGTH - PLACE_DIGITS - 2)
  if advanced[group] then return end
  advanced[group] = true
  drop_strays(group, {})
  if not is_lock(group) or held_count(group) == 0 then advance(group) end
end

local missing, wrong, stray = {}, {}, {}
for i, mark in ipairs(redis.call('HMGET', ENTRY, unpack(ids))) do
  local due, recorded = moment + tonumber(ARGV[4 * i + 1]), tonumber(ARGV[4 * i + 2])
  local names = string.sub(ARGV[4 * i + 3], 2)
  local known, lane, owner, _, grouped = parse(mark)
  local set, score
  if known then set, score = find(ids[i], lane, owner, grouped) end
  if not set then
    missing[#missing + 1] = i
    if mark then stray[#stray + 1] = ids[i] end
  elseif not fits(set, score, due, known - recorded)
    or ((grouped or names ~= '') and not (grouped and redis.call('HGET', GROUPS, ids[i]) == names)) then
    wrong[#wrong + 1] = i
  elseif set == LINE then
    go_on(ids[i])
  end
end
if #stray > 0 then redis.call('HDEL', ENTRY, unpack(stray)) end
return {missing, wrong}
