-- KEYS: the watch set of each task, all in the queue's hash slot. Returns the mailboxes of each, and ends the watches.
return take_watchers(KEYS)
