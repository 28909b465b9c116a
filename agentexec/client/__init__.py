"""Functions that an application calls: enqueue, wait for results, cancel, retry, approve."""
