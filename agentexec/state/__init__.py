"""State backends: the queue, its leases, mailboxes and live events."""
