-- ARGV: number of workers to wake.
wake(tonumber(ARGV[1]))
return 1
