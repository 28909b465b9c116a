"""Names that the driver and its workers share; the workers' module would register its tasks wherever it is imported."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table

EFFECTS = "chaos_effects"
"""Table of the transactional steps: name of the task, number of the step."""

LOCKED = Table(
    "chaos_locked",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("lock", String(20)),
    Column("name", String(60)),
    Column("step", Integer),
)
"""Rows that the tasks of a lock write, in the order of their transactions."""

SIDE = "chaos_side"
"""Second queue, which is paused now and then."""

LIMITED, LIMIT = "in_thread", 3
"""Task with a limit of concurrency, and the limit."""

TICK = "tick"
TICK_SECONDS = 2
"""Name and interval of the schedule."""
