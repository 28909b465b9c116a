-- ARGV: id and epoch of each lease. Returns the number of removed tasks.
return finish(ARGV)
