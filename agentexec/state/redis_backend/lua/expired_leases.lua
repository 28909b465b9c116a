-- ARGV: maximum number of leases. Returns what `expired_leases` does.
return expired_leases(ARGV[1])
