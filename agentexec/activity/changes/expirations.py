"""Expirations: tasks that had to start by a moment, and have not, are canceled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Integer, bindparam, select, update

from agentexec.activity.changes.endings import Ending, end
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.task import Lease, Status

EXPIRED = select(ACTIVITY.c.agent_id).where(
    ACTIVITY.c.expires_at <= bindparam("now", type_=ACTIVITY.c.expires_at.type)
)
"""Query of the tasks that may have expired."""

_OLDEST = EXPIRED.order_by(ACTIVITY.c.expires_at).limit(bindparam("most", type_=Integer))


class ExpiredTask(NamedTuple):
    """A task that had not started by `expires_at`."""

    agent_id: UUID
    queue: str
    expires_at: datetime


def has_expired(row: Any, now: datetime) -> bool:
    """Return whether a task has expired. One that has ever started never does, whatever happens to its attempts."""
    return (
        row.expires_at is not None
        and row.expires_at <= now
        and row.status is Status.QUEUED
        and row.started_at is None
    )


def end_expired(connection: Connection, expired: Sequence[ExpiredTask], now: datetime) -> None:
    """Cancel tasks that have expired, whose rows are locked."""
    groups: dict[str, list[UUID]] = defaultdict(list)
    for task in expired:
        message = f"It expired: not started by {task.expires_at:%Y-%m-%d %H:%M:%S}Z."
        groups[message].append(task.agent_id)
    for message, ids in groups.items():
        # Nobody has decided this, so it counts as a failure for those who want to know of these.
        ending = Ending(Lease(ids[0], 0), Status.CANCELED, message, error=message)
        end(connection, ending, ids, now, is_failure=True)


def expire_due(connection: Connection, now: datetime, limit: int) -> tuple[list[ExpiredTask], int]:
    """Cancel tasks of all queues that have expired; return them, and the number of tasks that were looked at.

    Those that another process has locked, which may be frozen, are left for the next turn.
    """
    c = ACTIVITY.c
    ids = connection.execute(_OLDEST, {"now": now, "most": limit}).scalars().all()
    if not ids:
        return [], 0
    # In key order, as all transactions lock rows.
    query = select(c.agent_id, c.status, c.queue, c.started_at, c.expires_at).where(c.agent_id.in_(ids))
    rows = connection.execute(query.order_by(c.agent_id).with_for_update(skip_locked=True)).all()
    expired = [ExpiredTask(row.agent_id, row.queue, row.expires_at) for row in rows if has_expired(row, now)]
    end_expired(connection, expired, now)
    # A worker of an earlier release leaves the moment in the rows of tasks that it starts.
    ended = {task.agent_id for task in expired}
    if past := [row.agent_id for row in rows if row.agent_id not in ended]:
        connection.execute(
            update(ACTIVITY).where(c.agent_id.in_(past), c.expires_at <= now).values(expires_at=None)
        )
    return expired, len(rows)
