"""State backends: where the queue, its leases and its signals live."""
