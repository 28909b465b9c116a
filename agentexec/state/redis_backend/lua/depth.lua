-- Returns the numbers of ready, delayed and leased tasks. A delayed task that is due counts as ready.
local due = redis.call('ZCOUNT', DELAYED, '-inf', digits(now()))
return {
  redis.call('ZCARD', HIGH) + redis.call('ZCARD', LOW) + redis.call('ZCARD', FAIR) + due,
  redis.call('ZCARD', DELAYED) - due,
  redis.call('ZCARD', LEASES),
}
