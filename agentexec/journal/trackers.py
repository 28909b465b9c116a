"""Counts that many tasks share, in the database: a task's change counts once, however often the task runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import inserting, reading, writing
from agentexec.journal.models import TrackerCount, TrackerMark

TRACKER: Any = TrackerCount.__table__
MARK: Any = TrackerMark.__table__

TRACKER_DAYS = 30
"""Days without a change after which a tracker is removed."""

Fire = Callable[[Connection, str], Callable[[], None]]
"""Function that enqueues a tracker's task (JSON) in a transaction, and returns a function to call after its commit."""


class Mark(NamedTuple):
    """Identity of a change: the task that makes it, and its place in that task."""

    agent_id: UUID
    path: str


@retry_on_deadlock
def change_count(engine: Engine, key: str, amount: int, mark: Mark | None, fire: Fire, now: datetime) -> int:
    """Add to a count and return the new count. A change that is marked is not repeated: it returns the count it made.

    A count that reaches 0 or less enqueues the tracker's task, once. Raises UnavailableError.
    """
    _create(engine, key, now)
    with writing(engine) as connection:
        row = _lock(connection, key)
        if mark is not None:
            marked_count = connection.execute(select(MARK.c.count).where(*_is(mark))).scalar()
            if marked_count is not None:
                return marked_count
        count = row.count + amount
        values: dict[str, Any] = {"count": count, "counted": True, "updated_at": now}
        after_commit = None
        if count <= 0 and row.task is not None and row.fired_at is None:
            after_commit = fire(connection, row.task)
            values["fired_at"] = now
        connection.execute(update(TRACKER).where(TRACKER.c.key == key).values(values))
        if mark is not None:
            connection.execute(insert(MARK).values(**mark._asdict(), count=count))
    if after_commit is not None:
        after_commit()
    return count


@retry_on_deadlock
def on_complete(engine: Engine, key: str, task: str, fire: Fire, now: datetime) -> bool:
    """Set the task (JSON) of a tracker that has none; True if it is enqueued now, because the count is complete."""
    _create(engine, key, now)
    with writing(engine) as connection:
        row = _lock(connection, key)
        if row.task is not None:
            # An earlier try may have set it, whose commit was not confirmed.
            return row.task == task and row.fired_at == now
        complete = row.counted and row.count <= 0
        after_commit = fire(connection, task) if complete else None
        values = {"task": task, "fired_at": now if complete else None, "updated_at": now}
        connection.execute(update(TRACKER).where(TRACKER.c.key == key).values(values))
    if after_commit is not None:
        after_commit()
    return complete


def read_count(engine: Engine, key: str) -> int:
    """Return the count, 0 for a tracker that was never changed."""
    with reading(engine) as connection:
        return connection.execute(select(TRACKER.c.count).where(TRACKER.c.key == key)).scalar() or 0


def expire(engine: Engine, now: datetime, limit: int) -> int:
    """Remove up to `limit` trackers without a change for TRACKER_DAYS; return how many."""
    query = (
        select(TRACKER.c.key).where(TRACKER.c.updated_at < now - timedelta(days=TRACKER_DAYS)).limit(limit)
    )
    with writing(engine, relaxed=True) as connection:
        keys = connection.execute(query).scalars().all()
        if keys:
            connection.execute(delete(TRACKER).where(TRACKER.c.key.in_(keys)))
    return len(keys)


def _create(engine: Engine, key: str, now: datetime) -> None:
    with reading(engine) as connection:
        if connection.execute(select(TRACKER.c.key).where(TRACKER.c.key == key)).scalar() is not None:
            return
    try:
        with inserting(engine) as connection:
            connection.execute(insert(TRACKER).values(key=key, count=0, counted=False, updated_at=now))
    except IntegrityError:
        return  # Another process has created it.


def _lock(connection: Connection, key: str) -> Any:
    return connection.execute(select(TRACKER).where(TRACKER.c.key == key).with_for_update()).one()


def _is(mark: Mark) -> tuple[Any, Any]:
    return MARK.c.agent_id == mark.agent_id, MARK.c.path == mark.path
