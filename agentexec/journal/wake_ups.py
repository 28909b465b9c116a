"""Wake-ups of tasks that left their worker to wait: an answer or event has come, and their queue must be told.

Whoever saves an answer or an event sets `wake_at` in the same transaction, then tells the queue, then clears it. If
that process dies in between, the reconciler finds the row and tells the queue.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Integer, Select, and_, bindparam, or_, select, update

from agentexec.activity.changes.statements import ACTIVITY
from agentexec.db.chunks import chunks
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, reading, writing
from agentexec.journal.approvals import without_open_questions
from agentexec.journal.events import EVENT_WAIT, with_arrived_events
from agentexec.journal.question_rows import APPROVAL
from agentexec.journal.waiting import WaitKind

WAIT_KINDS: tuple[WaitKind, ...] = ("approval", "event")

_TABLES: dict[WaitKind, Any] = {"approval": APPROVAL, "event": EVENT_WAIT}
_FIND_READY: dict[WaitKind, Callable[[Engine, Sequence[UUID]], list[UUID]]] = {
    "approval": without_open_questions,
    "event": with_arrived_events,
}


def ready_tasks(engine: Engine, waiting: Mapping[UUID, frozenset[str]]) -> list[UUID]:
    """Return the tasks for which something that they wait for has come; `waiting` maps each to what it waits for."""
    ready: set[UUID] = set()
    for kind, find in _FIND_READY.items():
        agent_ids = [agent_id for agent_id, kinds in waiting.items() if kind in kinds]
        if agent_ids:
            ready.update(find(engine, agent_ids))
    return [agent_id for agent_id in waiting if agent_id in ready]


def answered_tasks(engine: Engine, agent_ids: Sequence[UUID]) -> list[UUID]:
    """Return the tasks that have asked for approvals which are all answered now, or whose event has come."""
    asked: list[UUID] = []
    for chunk in chunks(agent_ids):
        query = select(APPROVAL.c.agent_id).where(APPROVAL.c.agent_id.in_(chunk)).distinct()
        with reading(engine) as connection:
            found = list(connection.execute(query).scalars())
        if found:
            asked += without_open_questions(engine, found)
    return list({*asked, *with_arrived_events(engine, agent_ids)})


def tasks_to_wake(
    engine: Engine, kind: WaitKind, queue: str, before: datetime, limit: int, leeway: float = 60.0
) -> list[UUID]:
    """Return up to `limit` tasks whose answers or events came before a moment, and whose queue was not told.

    A time that is more than `leeway` seconds after the moment was written by a host whose clock is wrong, and counts too.
    """
    values = {**untold_values(before, leeway), "its_queue": queue, "most": limit}
    with looking_up(engine) as connection:
        return list(connection.execute(_untold_on_queue(kind), values).scalars())


def untold(kind: WaitKind) -> Select[Any]:
    """Return the query of the tasks whose answers or events their queues, whichever, were not told of."""
    waits = _TABLES[kind]
    moment = waits.c.wake_at.type
    is_due = or_(
        waits.c.wake_at < bindparam("before", type_=moment),
        waits.c.wake_at > bindparam("after", type_=moment),
    )
    return select(waits.c.agent_id).where(is_due)


def untold_values(before: datetime, leeway: float = 60.0) -> dict[str, datetime]:
    """Return the parameters of `untold`."""
    return {"before": before, "after": before + timedelta(seconds=leeway)}


@functools.cache
def _untold_on_queue(kind: WaitKind) -> Select[Any]:
    """Return the query of `tasks_to_wake`."""
    waits = _TABLES[kind]
    # Looked up for each wait. A join may be made the other way around, by reading all activities.
    its_queue = select(ACTIVITY.c.queue).where(ACTIVITY.c.agent_id == waits.c.agent_id).scalar_subquery()
    return untold(kind).where(its_queue == bindparam("its_queue")).limit(bindparam("most", type_=Integer))


def answered_by_queue(engine: Engine, agent_ids: Sequence[UUID]) -> dict[str, list[UUID]]:
    """Return those of the tasks that wait for no answer any more, by their queues."""
    ready = without_open_questions(engine, agent_ids)
    queues: dict[str, list[UUID]] = {}
    query = select(ACTIVITY.c.queue, ACTIVITY.c.agent_id)
    with reading(engine) as connection:
        for queue, agent_id in connection.execute(query.where(ACTIVITY.c.agent_id.in_(ready))):
            if queue is not None:
                queues.setdefault(queue, []).append(agent_id)
    return queues


@retry_on_deadlock
def mark_woken(engine: Engine, kind: WaitKind, agent_ids: Sequence[UUID]) -> None:
    """Note that the queue was told of these tasks' answers or events."""
    waits = _TABLES[kind]
    told = and_(waits.c.agent_id.in_(agent_ids), waits.c.wake_at.is_not(None))
    with writing(engine, relaxed=True) as connection:
        connection.execute(update(waits).where(told).values(wake_at=None))
