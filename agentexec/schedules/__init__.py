"""Schedules: tasks that are enqueued at times of the clock, each tick exactly once."""
