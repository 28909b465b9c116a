-- KEYS: the watch set of each task, all in the queue's hash slot. Returns the mailboxes of each, and ends the watches.
-- A key of another type ends the script before anything is deleted.
local reply = {}
local watched = redis.call('EXISTS', unpack(KEYS)) > 0
for i, key in ipairs(KEYS) do
  reply[i] = watched and redis.call('SMEMBERS', key) or {}
end
if watched then redis.call('DEL', unpack(KEYS)) end
return reply
