"""Messages that reach the turn that runs: they join it before a model call, or interrupt it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, or_, select

from agentexec.activity.changes.endings import end_from_outside
from agentexec.activity.models import Activity
from agentexec.config import CONF
from agentexec.conversations.inbox import JOINED, MAX_WAITING, MESSAGE, WAITING, give_messages
from agentexec.conversations.locking import lock_conversation
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.journal.facts import Fact, FactKind, dump
from agentexec.journal.store import JOURNAL, insert_fact, require_lease
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES, Lease, Status

log = logging.getLogger("agentexec.conversations")

ACTIVITY: Any = Activity.__table__


class Arrivals(NamedTuple):
    """Kinds of messages that wait for a turn that runs."""

    interrupts: bool
    joins: bool


def look_for_arrivals(engine: Engine, conversation: str) -> Arrivals:
    """Return whether messages wait that interrupt the turn, or that are to join it."""
    c = MESSAGE.c
    query = (
        select(c.if_busy)
        .join_from(MESSAGE, ACTIVITY, ACTIVITY.c.agent_id == c.task_id)
        .where(c.conversation_id == conversation, c.state == WAITING, c.if_busy.in_(["steer", "interrupt"]))
        .where(ACTIVITY.c.status.in_(ACTIVE_STATUSES))
        .limit(MAX_WAITING)
    )
    with looking_up(engine) as connection:
        kinds = set(connection.execute(query).scalars())
    return Arrivals("interrupt" in kinds, "steer" in kinds)


def find_joined(engine: Engine, conversation: str, turn_id: UUID) -> list[int]:
    """Return the numbers of the messages that have joined a turn."""
    c = MESSAGE.c
    query = select(c.number).where(c.conversation_id == conversation, c.state == JOINED, c.turn_id == turn_id)
    with looking_up(engine) as connection:
        return list(connection.execute(query.order_by(c.number)).scalars())


@retry_on_deadlock
def join_messages(
    engine: Engine, lease: Lease, conversation: str, fact: Fact, again: Collection[int]
) -> Fact | None:
    """Let waiting messages join a turn before a model call, and record that; return the fact, None if there are none.

    The tasks that the messages were sent with are canceled in the same transaction. May be called again after
    UnavailableError. Raises LeaseLostError.

    Args:
        engine: The record's database.
        lease: Lease of the turn.
        conversation: Id of the conversation.
        fact: The fact without its messages.
        again: Messages that have joined before, in records that were dropped since.
    """
    with writing(engine) as connection:
        require_lease(connection, lease)
        row = lock_conversation(connection, conversation)
        if (known := _recorded(connection, lease, fact)) is not None:
            return fact._replace(value=known)
        waiting = _joining(connection, conversation, again)
        queues = _end_tasks(connection, [message for message in waiting if message.state == WAITING], lease)
        joined = [message for message in waiting if message.state == JOINED or message.task_id in queues]
        if not joined:
            return None
        fresh = [message.number for message in joined if message.state == WAITING]
        give_messages(connection, row, fresh, JOINED, lease.agent_id)
        messages = [{"number": message.number, "text": message.text} for message in joined]
        value = {**json.loads(fact.value), "messages": messages}
        fact = fact._replace(value=dump(value, "A message"))
        insert_fact(connection, lease, fact, None, utc_now())
    _tell(queues)
    return fact


def _recorded(connection: Connection, lease: Lease, fact: Fact) -> str | None:
    """Return the fact in this place, if an earlier try has recorded it and its commit was not confirmed."""
    c = JOURNAL.c
    query = select(c.value).where(c.agent_id == lease.agent_id, c.path == fact.path, c.seq == fact.seq)
    value: str | None = connection.execute(query).scalar()
    return value


def _joining(connection: Connection, conversation: str, again: Collection[int]) -> Sequence[Any]:
    c = MESSAGE.c
    waits = and_(c.state == WAITING, c.if_busy == "steer")
    query = (
        select(c.number, c.text, c.state, c.task_id)
        .where(c.conversation_id == conversation, or_(waits, c.number.in_(again)) if again else waits)
        .order_by(c.number)
        .limit(MAX_WAITING)
    )
    return connection.execute(query).all()


def _end_tasks(connection: Connection, waiting: Sequence[Any], lease: Lease) -> dict[UUID, str]:
    """Cancel the queued tasks of messages; return those that were canceled, with their queues."""
    if not waiting:
        return {}
    ended = end_from_outside(
        connection,
        [message.task_id for message in waiting],
        status=Status.CANCELED,
        message=f"Its message joined the running turn {lease.agent_id}.",
        error=None,
        now=utc_now(),
        from_statuses=frozenset([Status.QUEUED]),
    )
    query = select(ACTIVITY.c.agent_id, ACTIVITY.c.queue).where(ACTIVITY.c.agent_id.in_(ended))
    return {row.agent_id: row.queue or CONF.queue_name for row in connection.execute(query)}


def _tell(queues: dict[UUID, str]) -> None:
    """Take canceled tasks out of their queues, and tell those that wait for them."""
    for queue in set(queues.values()):
        agent_ids = [agent_id for agent_id, of_task in queues.items() if of_task == queue]
        # The record says CANCELED, so a worker that claims such a task only acknowledges it.
        with RUNTIME.best_effort(log, "%d joined message(s) leave their queue later.", len(agent_ids)):
            RUNTIME.backend.remove(queue, agent_ids)
            RUNTIME.backend.notify_done(queue, agent_ids)


def new_fact(path: str, seq: int, turn: int) -> Fact:
    """Return the fact that messages join before a model call, without the messages."""
    return Fact(path, seq, FactKind.OUTCOME, "", dump({"turn": turn}, "A message"))
