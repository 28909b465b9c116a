-- Ends the watches of tasks, given by the keys of their watch sets, and returns the mailboxes of each.
-- A key of another type ends the script before anything is deleted.
local function take_watchers(keys)
  local reply = {}
  local watched = redis.call('EXISTS', unpack(keys)) > 0
  for i, key in ipairs(keys) do
    reply[i] = watched and redis.call('SMEMBERS', key) or {}
  end
  if watched then redis.call('DEL', unpack(keys)) end
  return reply
end
