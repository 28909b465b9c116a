"""Locks of tasks that were ended from outside while their handlers ran: each is freed when its handler has stopped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, select, update

from agentexec.activity.changes.statements import ACTIVITY
from agentexec.db.chunks import CHUNK_SIZE, chunks
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.task import FINAL_STATUSES

_KEPT = (ACTIVITY.c.held_lock.is_not(None), ACTIVITY.c.status.in_(FINAL_STATUSES))


def free_locks(connection: Connection, agent_ids: Sequence[UUID]) -> None:
    """Free the locks of tasks that have ended, of those that still have them."""
    for chunk in chunks(sorted(agent_ids)):
        statement = update(ACTIVITY).where(ACTIVITY.c.agent_id.in_(chunk), *_KEPT).values(held_lock=None)
        connection.execute(statement)


@retry_on_deadlock
def free_locks_now(engine: Engine, agent_ids: Sequence[UUID]) -> None:
    """Free the locks of tasks that have ended, in a transaction of its own."""
    with writing(engine, relaxed=True) as connection:
        free_locks(connection, agent_ids)


def tasks_with_kept_locks(engine: Engine, agent_ids: Sequence[UUID]) -> list[UUID]:
    """Return those of these tasks that have ended and still have their locks."""
    found: list[UUID] = []
    with reading(engine) as connection:
        for chunk in chunks(agent_ids):
            query = select(ACTIVITY.c.agent_id).where(ACTIVITY.c.agent_id.in_(chunk), *_KEPT)
            found.extend(connection.execute(query).scalars())
    return found


def find_kept_locks(engine: Engine, queue: str, before: datetime) -> list[UUID]:
    """Return tasks of a queue that ended before a moment and still have their locks, some hundreds at most."""
    c = ACTIVITY.c
    query = select(c.agent_id).where(*_KEPT, c.queue == queue, c.updated_at < before).limit(CHUNK_SIZE)
    with reading(engine) as connection:
        return list(connection.execute(query).scalars())
