-- KEYS: the mark of a complete index. Returns the mark, and the id of this run of the server, false if its user may not read it.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or false
return {redis.call('GET', KEYS[1]), run_id}
