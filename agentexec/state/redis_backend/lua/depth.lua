-- Returns the numbers of ready, delayed and leased tasks, and of those that wait for a group. A delayed task that is due counts as ready.
local due = redis.call('ZCOUNT', DELAYED, '-inf', digits(now()))
return {
  redis.call('ZCARD', HIGH) + redis.call('ZCARD', LOW) + redis.call('ZCARD', FAIR) + due,
  redis.call('ZCARD', DELAYED) - due,
  redis.call('ZCARD', LEASES),
  redis.call('ZCARD', LINE),
}
