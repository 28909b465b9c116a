"""Comparison with other task queues, each in an environment of its own and started as its documentation says."""
