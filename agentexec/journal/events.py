"""Events that tasks wait for: sent once, kept for some weeks, and given to each task that waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, insert, or_, select, update

from agentexec.activity.changes.statements import ACTIVITY
from agentexec.db.chunks import chunks
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.journal.approvals import without_open_questions
from agentexec.journal.models import EventWait, SentEvent
from agentexec.journal.store import require_lease
from agentexec.task import Lease, Status

EVENT: Any = SentEvent.__table__
WAIT: Any = EventWait.__table__

EVENT_DAYS = 30
"""Days that a sent event is kept."""


class EventRequest(NamedTuple):
    """One wait of a task: `path` is its place in the task."""

    path: str
    name: str
    key: str
    expires_at: datetime | None


class Found(NamedTuple):
    """What a look gave: the event's value (JSON), or that its time is over, or neither. `expires_at` is the wait's own."""

    value: str | None
    expired: bool
    expires_at: datetime | None


@retry_on_deadlock
def take_event(engine: Engine, lease: Lease, wanted: EventRequest, now: datetime) -> Found:
    """Take the oldest event that the task has not had yet; else note that it waits.

    Events count from the moment the task was enqueued. Raises LeaseLostError, UnavailableError.
    """
    with writing(engine) as connection:
        require_lease(connection, lease)
        row = connection.execute(
            select(WAIT).where(WAIT.c.agent_id == lease.agent_id, WAIT.c.path == wanted.path)
        ).one_or_none()
        expires_at = wanted.expires_at if row is None else row.expires_at
        if row is None:
            values = {"agent_id": lease.agent_id, "created_at": now, **wanted._asdict()}
            connection.execute(insert(WAIT).values(values))
        if row is not None and row.event_id is not None:
            value = connection.execute(select(EVENT.c.value).where(EVENT.c.id == row.event_id)).scalar()
            return Found(value, value is None, expires_at)
        event = _next(connection, lease.agent_id, wanted, expires_at)
        if event is None:
            return Found(None, expires_at is not None and expires_at <= now, expires_at)
        own = and_(WAIT.c.agent_id == lease.agent_id, WAIT.c.path == wanted.path)
        connection.execute(update(WAIT).where(own).values(event_id=event.id, wake_at=None))
        return Found(event.value, False, expires_at)


def _next(connection: Connection, agent_id: UUID, wanted: EventRequest, expires_at: datetime | None) -> Any:
    since = select(ACTIVITY.c.created_at).where(ACTIVITY.c.agent_id == agent_id).scalar_subquery()
    had = select(WAIT.c.event_id).where(WAIT.c.agent_id == agent_id, WAIT.c.event_id.is_not(None))
    query = select(EVENT.c.id, EVENT.c.value).where(
        EVENT.c.name == wanted.name,
        EVENT.c.key == wanted.key,
        EVENT.c.created_at >= since,
        EVENT.c.id.not_in(had),
    )
    if expires_at is not None:
        query = query.where(EVENT.c.created_at < expires_at)
    return connection.execute(query.order_by(EVENT.c.id).limit(1)).one_or_none()


@retry_on_deadlock
def save_event(engine: Engine, name: str, key: str, value: str, now: datetime) -> dict[str, list[UUID]]:
    """Keep an event; returns the tasks that wait for it, by queue. Raises UnavailableError."""
    waiting = (
        select(ACTIVITY.c.agent_id, ACTIVITY.c.queue)
        .where(
            ACTIVITY.c.agent_id.in_(select(WAIT.c.agent_id).where(*_open(now), *_of(name, key))),
            ACTIVITY.c.status == Status.QUEUED,
        )
        .order_by(ACTIVITY.c.agent_id)
        .with_for_update()
    )
    with writing(engine) as connection:
        connection.execute(insert(EVENT).values(name=name, key=key, value=value, created_at=now))
        queues: dict[str, list[UUID]] = {}
        for row in connection.execute(waiting):
            queues.setdefault(row.queue, []).append(row.agent_id)
        for chunk in chunks([agent_id for agent_ids in queues.values() for agent_id in agent_ids]):
            mine = and_(WAIT.c.agent_id.in_(chunk), *_of(name, key), *_open(now))
            connection.execute(update(WAIT).where(mine).values(wake_at=now))
            connection.execute(update(ACTIVITY).where(ACTIVITY.c.agent_id.in_(chunk)).values(run_at=None))
    return queues


def _of(name: str, key: str) -> Sequence[ColumnElement[bool]]:
    return WAIT.c.name == name, WAIT.c.key == key


def _open(now: datetime) -> Sequence[ColumnElement[bool]]:
    return WAIT.c.event_id.is_(None), or_(WAIT.c.expires_at.is_(None), WAIT.c.expires_at > now)


def ready_tasks(engine: Engine, waiting: Mapping[UUID, frozenset[str]]) -> list[UUID]:
    """Of tasks, and the kinds of what they wait for, those for which something of that has come."""
    for_answers = [agent_id for agent_id, kinds in waiting.items() if "approval" in kinds]
    for_events = [agent_id for agent_id, kinds in waiting.items() if "event" in kinds]
    found = {*without_open_questions(engine, for_answers)} if for_answers else set[UUID]()
    if for_events:
        found.update(_arrived(engine, for_events))
    return [agent_id for agent_id in waiting if agent_id in found]


def _arrived(engine: Engine, agent_ids: Sequence[UUID]) -> list[UUID]:
    other = WAIT.alias()
    had = select(other.c.event_id).where(other.c.agent_id == WAIT.c.agent_id, other.c.event_id == EVENT.c.id)
    query = (
        select(WAIT.c.agent_id)
        .join(ACTIVITY, ACTIVITY.c.agent_id == WAIT.c.agent_id)
        .join(EVENT, and_(EVENT.c.name == WAIT.c.name, EVENT.c.key == WAIT.c.key))
        .where(
            WAIT.c.event_id.is_(None),
            EVENT.c.created_at >= ACTIVITY.c.created_at,
            or_(WAIT.c.expires_at.is_(None), EVENT.c.created_at < WAIT.c.expires_at),
            ~had.exists(),
        )
    )
    with reading(engine) as connection:
        return [
            agent_id
            for chunk in chunks(agent_ids)
            for agent_id in connection.execute(query.where(WAIT.c.agent_id.in_(chunk))).scalars()
        ]


def tasks_to_wake(engine: Engine, queue: str, before: datetime, limit: int) -> list[UUID]:
    """Tasks for which an event came before a moment, and whose queue was not told."""
    query = (
        select(WAIT.c.agent_id)
        .join(ACTIVITY, ACTIVITY.c.agent_id == WAIT.c.agent_id)
        .where(WAIT.c.wake_at < before, ACTIVITY.c.queue == queue)
        .limit(limit)
    )
    with reading(engine) as connection:
        return list(connection.execute(query).scalars())


def mark_woken(engine: Engine, agent_ids: Sequence[UUID]) -> None:
    """The queue was told of these tasks' events."""
    chosen = and_(WAIT.c.agent_id.in_(agent_ids), WAIT.c.wake_at.is_not(None))
    with writing(engine, relaxed=True) as connection:
        connection.execute(update(WAIT).where(chosen).values(wake_at=None))


def expire(engine: Engine, now: datetime, limit: int) -> int:
    """Remove up to `limit` events that are older than EVENT_DAYS; returns how many."""
    query = select(EVENT.c.id).where(EVENT.c.created_at < now - timedelta(days=EVENT_DAYS)).limit(limit)
    with writing(engine, relaxed=True) as connection:
        ids = connection.execute(query).scalars().all()
        if ids:
            connection.execute(delete(EVENT).where(EVENT.c.id.in_(ids)))
    return len(ids)
