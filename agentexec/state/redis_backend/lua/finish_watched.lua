-- KEYS: those of the queue, then the watch set of each task. ARGV: id and epoch of each lease. Finishes the tasks, ends their
-- watches, and returns the mailboxes of each.
finish(ARGV)
return take_watchers({unpack(KEYS, #KEYS - #ARGV / 2 + 1)})
