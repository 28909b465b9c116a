"""Workflows made of tasks: pipelines, fan-out, trackers, sleep and events."""
