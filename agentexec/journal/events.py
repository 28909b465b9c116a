"""Events that tasks wait for: sent once, kept for EVENT_DAYS, and given to each task that waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, insert, or_, select, update

from agentexec.activity.changes.statements import ACTIVITY
from agentexec.db.chunks import chunks
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.journal.models import EventWait, SentEvent
from agentexec.journal.store import require_lease
from agentexec.task import Lease, Status

EVENT: Any = SentEvent.__table__
EVENT_WAIT: Any = EventWait.__table__

EVENT_DAYS = 30
"""Days for which a sent event is kept."""


class EventRequest(NamedTuple):
    """A task's wait for an event; `path` is its place in the task."""

    path: str
    name: str
    key: str
    expires_at: datetime | None


class EventLookup(NamedTuple):
    """Result of a check for an event: its value (JSON), or `expired`, or neither yet.

    `expires_at` is the moment at which the wait ends, as it was first saved.
    """

    value: str | None
    expired: bool
    expires_at: datetime | None


@retry_on_deadlock
def take_event(engine: Engine, lease: Lease, request: EventRequest, now: datetime) -> EventLookup:
    """Save the task's wait, and take the oldest event that the task has not had yet.

    Events count from the moment the task was enqueued. Raises LeaseLostError, UnavailableError.
    """
    with writing(engine) as connection:
        require_lease(connection, lease)
        row = connection.execute(
            select(EVENT_WAIT).where(
                EVENT_WAIT.c.agent_id == lease.agent_id, EVENT_WAIT.c.path == request.path
            )
        ).one_or_none()
        expires_at = request.expires_at if row is None else row.expires_at
        if row is None:
            values = {"agent_id": lease.agent_id, "created_at": now, **request._asdict()}
            connection.execute(insert(EVENT_WAIT).values(values))
        if row is not None and row.event_id is not None:
            value = connection.execute(select(EVENT.c.value).where(EVENT.c.id == row.event_id)).scalar()
            return EventLookup(value, value is None, expires_at)
        event = _next(connection, lease.agent_id, request, expires_at)
        if event is None:
            return EventLookup(None, expires_at is not None and expires_at <= now, expires_at)
        wait = and_(EVENT_WAIT.c.agent_id == lease.agent_id, EVENT_WAIT.c.path == request.path)
        connection.execute(update(EVENT_WAIT).where(wait).values(event_id=event.id, wake_at=None))
        return EventLookup(event.value, False, expires_at)


def _next(connection: Connection, agent_id: UUID, request: EventRequest, expires_at: datetime | None) -> Any:
    since = select(ACTIVITY.c.created_at).where(ACTIVITY.c.agent_id == agent_id).scalar_subquery()
    had = select(EVENT_WAIT.c.event_id).where(
        EVENT_WAIT.c.agent_id == agent_id, EVENT_WAIT.c.event_id.is_not(None)
    )
    query = select(EVENT.c.id, EVENT.c.value).where(
        EVENT.c.name == request.name,
        EVENT.c.key == request.key,
        EVENT.c.created_at >= since,
        EVENT.c.id.not_in(had),
    )
    if expires_at is not None:
        query = query.where(EVENT.c.created_at < expires_at)
    return connection.execute(query.order_by(EVENT.c.id).limit(1)).one_or_none()


@retry_on_deadlock
def save_event(
    engine: Engine, name: str, key: str, value: str, now: datetime, *, may_exist: bool = False
) -> dict[str, list[UUID]]:
    """Save an event and return the tasks that wait for it, by queue. Raises UnavailableError.

    `may_exist`: an earlier call with these arguments may have saved it, and none of the tasks was told.
    """
    waiting = (
        select(ACTIVITY.c.agent_id, ACTIVITY.c.queue)
        .where(
            ACTIVITY.c.agent_id.in_(
                select(EVENT_WAIT.c.agent_id).where(*_is_open(now), *_waits_for(name, key))
            ),
            ACTIVITY.c.status == Status.QUEUED,
        )
        .order_by(ACTIVITY.c.agent_id)
        .with_for_update()
    )
    with writing(engine) as connection:
        if not may_exist or not _is_saved(connection, name, key, value, now):
            connection.execute(insert(EVENT).values(name=name, key=key, value=value, created_at=now))
        queues: dict[str, list[UUID]] = {}
        for row in connection.execute(waiting):
            queues.setdefault(row.queue, []).append(row.agent_id)
        for chunk in chunks([agent_id for agent_ids in queues.values() for agent_id in agent_ids]):
            open_waits = and_(EVENT_WAIT.c.agent_id.in_(chunk), *_waits_for(name, key), *_is_open(now))
            connection.execute(update(EVENT_WAIT).where(open_waits).values(wake_at=now))
            connection.execute(update(ACTIVITY).where(ACTIVITY.c.agent_id.in_(chunk)).values(run_at=None))
    return queues


def _is_saved(connection: Connection, name: str, key: str, value: str, at: datetime) -> bool:
    query = select(EVENT.c.value).where(EVENT.c.name == name, EVENT.c.key == key, EVENT.c.created_at == at)
    return value in connection.execute(query).scalars()


def _waits_for(name: str, key: str) -> Sequence[ColumnElement[bool]]:
    return EVENT_WAIT.c.name == name, EVENT_WAIT.c.key == key


def _is_open(now: datetime) -> Sequence[ColumnElement[bool]]:
    return EVENT_WAIT.c.event_id.is_(None), or_(
        EVENT_WAIT.c.expires_at.is_(None), EVENT_WAIT.c.expires_at > now
    )


def with_arrived_events(engine: Engine, agent_ids: Sequence[UUID]) -> list[UUID]:
    """Return the tasks that wait for an event which was sent in time and which they have not had yet."""
    other_wait = EVENT_WAIT.alias()
    had = select(other_wait.c.event_id).where(
        other_wait.c.agent_id == EVENT_WAIT.c.agent_id, other_wait.c.event_id == EVENT.c.id
    )
    query = (
        select(EVENT_WAIT.c.agent_id)
        .join(ACTIVITY, ACTIVITY.c.agent_id == EVENT_WAIT.c.agent_id)
        .join(EVENT, and_(EVENT.c.name == EVENT_WAIT.c.name, EVENT.c.key == EVENT_WAIT.c.key))
        .where(
            EVENT_WAIT.c.event_id.is_(None),
            EVENT.c.created_at >= ACTIVITY.c.created_at,
            or_(EVENT_WAIT.c.expires_at.is_(None), EVENT.c.created_at < EVENT_WAIT.c.expires_at),
            ~had.exists(),
        )
    )
    with reading(engine) as connection:
        return [
            agent_id
            for chunk in chunks(agent_ids)
            for agent_id in connection.execute(query.where(EVENT_WAIT.c.agent_id.in_(chunk))).scalars()
        ]


def expire(engine: Engine, now: datetime, limit: int) -> int:
    """Remove up to `limit` events older than EVENT_DAYS; return how many."""
    query = select(EVENT.c.id).where(EVENT.c.created_at < now - timedelta(days=EVENT_DAYS)).limit(limit)
    with writing(engine, relaxed=True) as connection:
        ids = connection.execute(query).scalars().all()
        if ids:
            connection.execute(delete(EVENT).where(EVENT.c.id.in_(ids)))
    return len(ids)
