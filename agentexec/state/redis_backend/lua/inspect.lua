-- KEYS: those of the queue, and the mark of a complete index. ARGV: maximum number of leases. Returns the mark, the id of this
-- run of the server, false if its user may not read it, and then what `expired_leases` does.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or false
local expired = expired_leases(ARGV[1])
return {redis.call('GET', KEYS[#KEYS]), run_id, unpack(expired)}
