"""Counts that many tasks share, in the record: each change of a task counts once, however often the task runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.journal.models import TrackerCount, TrackerMark

TRACKER: Any = TrackerCount.__table__
MARK: Any = TrackerMark.__table__

TRACKER_DAYS = 30
"""Days after its last change that a tracker is forgotten."""

Fire = Callable[[Connection, str], Callable[[], None]]
"""Enqueues the task of a tracker (JSON) within a transaction; returns what is to be called after its commit."""


class Mark(NamedTuple):
    """Whose change it is: a task, and the change's place in it."""

    agent_id: UUID
    path: str


@retry_on_deadlock
def change_count(engine: Engine, key: str, amount: int, mark: Mark | None, fire: Fire, now: datetime) -> int:
    """Add to a count and return it; a change that is marked already is not made again, and returns what it did.

    A count that comes to 0 or below enqueues the tracker's task, once. Raises UnavailableError.
    """
    _create(engine, key, now)
    with writing(engine) as connection:
        row = _lock(connection, key)
        if mark is not None:
            before = connection.execute(select(MARK.c.count).where(*_is(mark))).scalar()
            if before is not None:
                return before
        count = row.count + amount
        values: dict[str, Any] = {"count": count, "counted": True, "updated_at": now}
        after = None
        if count <= 0 and row.task is not None and row.fired_at is None:
            after = fire(connection, row.task)
            values["fired_at"] = now
        connection.execute(update(TRACKER).where(TRACKER.c.key == key).values(values))
        if mark is not None:
            connection.execute(insert(MARK).values(**mark._asdict(), count=count))
    if after is not None:
        after()
    return count


@retry_on_deadlock
def on_complete(engine: Engine, key: str, task: str, fire: Fire, now: datetime) -> bool:
    """Set the task (JSON) of a tracker, unless it has one; True if it was enqueued now, because the count is there."""
    _create(engine, key, now)
    with writing(engine) as connection:
        row = _lock(connection, key)
        if row.task is not None:
            return False
        complete = row.counted and row.count <= 0
        after = fire(connection, task) if complete else None
        values = {"task": task, "fired_at": now if complete else None, "updated_at": now}
        connection.execute(update(TRACKER).where(TRACKER.c.key == key).values(values))
    if after is not None:
        after()
    return complete


def read_count(engine: Engine, key: str) -> int:
    """The count, 0 of a tracker that nobody has changed."""
    with reading(engine) as connection:
        return connection.execute(select(TRACKER.c.count).where(TRACKER.c.key == key)).scalar() or 0


def expire(engine: Engine, now: datetime, limit: int) -> int:
    """Forget up to `limit` trackers that have not changed for TRACKER_DAYS; returns how many."""
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
        with writing(engine, by_key_only=False) as connection:
            connection.execute(insert(TRACKER).values(key=key, count=0, counted=False, updated_at=now))
    except IntegrityError:
        return  # another was faster


def _lock(connection: Connection, key: str) -> Any:
    return connection.execute(select(TRACKER).where(TRACKER.c.key == key).with_for_update()).one()


def _is(mark: Mark) -> tuple[Any, Any]:
    return MARK.c.agent_id == mark.agent_id, MARK.c.path == mark.path
