"""Messages of a conversation: sent, waiting, and taken by one turn each, in one order.

A message is sent with the task that will be its turn, in one transaction, so an accepted one always has a task. The tasks
have the conversation's lock, which makes turns run one at a time. Turns take the messages in their order: a task that starts
before one that was enqueued earlier, as may happen after Redis was away, exchanges its message with that one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, case, insert, select, update

from agentexec.activity.models import Activity
from agentexec.conversations.locking import advance, lock_conversation, lock_key_of
from agentexec.conversations.models import MessageRow
from agentexec.conversations.turns import ConversationMessage, IfBusy
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.errors import ConversationBusyError
from agentexec.journal.store import require_lease
from agentexec.task import ACTIVE_STATUSES, Lease

ACTIVITY: Any = Activity.__table__
MESSAGE: Any = MessageRow.__table__

MAX_WAITING = 100
"""Number of messages of a conversation that may wait for their turns."""

WAITING, TAKEN, JOINED, DROPPED = "waiting", "taken", "joined", "dropped"
"""States of a message."""

_COLUMNS = select(MESSAGE)


def find_by_key(connection: Connection, conversation: str, key: str | None) -> ConversationMessage | None:
    """Return the message that was sent with an idempotency key."""
    if key is None:
        return None
    c = MESSAGE.c
    query = _COLUMNS.where(c.conversation_id == conversation, c.idempotency_key == key)
    row = connection.execute(query).one_or_none()
    return None if row is None else message_of(row)


def refuse_busy(connection: Connection, conversation: str, if_busy: IfBusy) -> None:
    """Raise ConversationBusyError if a conversation, which is locked, takes no message of this kind now."""
    waiting = _waiting_numbers(connection, conversation, MAX_WAITING)
    if len(waiting) >= MAX_WAITING:
        raise ConversationBusyError(
            conversation,
            f"has {MAX_WAITING} messages waiting for their turns; send again when some have ended.",
        )
    if if_busy == "reject" and (waiting or _is_running(connection, conversation)):
        raise ConversationBusyError(
            conversation,
            'has a turn that runs or waits; send the message when it has ended, or with if_busy="queue".',
        )


def _waiting_numbers(connection: Connection, conversation: str, limit: int) -> list[int]:
    """Return messages that wait for their turns. Those whose tasks have ended without a turn are marked."""
    c = MESSAGE.c
    query = (
        select(c.number, ACTIVITY.c.status)
        .outerjoin_from(MESSAGE, ACTIVITY, ACTIVITY.c.agent_id == c.task_id)
        .where(c.conversation_id == conversation, c.state == WAITING)
        .order_by(c.number)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    ended = [row.number for row in rows if row.status not in ACTIVE_STATUSES]
    if ended:
        mine = (c.conversation_id == conversation, c.number.in_(ended), c.state == WAITING)
        connection.execute(update(MESSAGE).where(*mine).values(state=DROPPED))
    return [row.number for row in rows if row.status in ACTIVE_STATUSES]


def _is_running(connection: Connection, conversation: str) -> bool:
    """Return True if a turn has started and not ended: then it has the lock."""
    query = select(ACTIVITY.c.agent_id).where(ACTIVITY.c.held_lock == lock_key_of(conversation))
    return connection.execute(query).first() is not None


def add_message(
    connection: Connection,
    row: Any,
    *,
    text: str,
    if_busy: IfBusy,
    task_id: UUID,
    idempotency_key: str | None,
    now: datetime,
) -> ConversationMessage:
    """Add a message to a conversation, whose locked row is given."""
    number = row.last_message + 1
    values = {"conversation_id": row.id, "number": number, "text": text, "if_busy": if_busy, "state": WAITING}
    keys = {"task_id": task_id, "idempotency_key": idempotency_key, "created_at": now}
    connection.execute(insert(MESSAGE).values(**values, **keys))
    advance(connection, row.id, now, last_message=number)
    return ConversationMessage(
        conversation=row.id,
        number=number,
        text=text,
        if_busy=if_busy,
        state=WAITING,
        agent_id=task_id,
        created_at=now,
    )


@retry_on_deadlock
def take_message(engine: Engine, lease: Lease) -> Any:
    """Let a turn take the next message of its conversation; return its row, None for a task that no message was sent with.

    The attempts of a turn all get the same message. One that has joined another turn is returned as it is.
    Raises LeaseLostError.
    """
    with looking_up(engine) as connection:
        own = _message_of_task(connection, lease.agent_id)
    if own is None or own.state in (TAKEN, JOINED):
        return own
    with writing(engine) as connection:
        require_lease(connection, lease)
        row = lock_conversation(connection, own.conversation_id)
        own = _message_of_task(connection, lease.agent_id)
        if own is None or own.state in (TAKEN, JOINED):
            return own
        first = _first_waiting(connection, own.conversation_id)
        if first is not None and _comes_before(first, own) and _exchange(connection, own, first):
            own = first
        give_messages(connection, row, [own.number], TAKEN, lease.agent_id)
    return own


def give_messages(
    connection: Connection, row: Any, numbers: Sequence[int], state: str, turn_id: UUID
) -> None:
    """Note that a turn has messages of a conversation, whose locked row is given."""
    now = utc_now()
    for position, number in enumerate(numbers, row.last_taken + 1):
        mine = (MESSAGE.c.conversation_id == row.id, MESSAGE.c.number == number)
        given = {"state": state, "turn_id": turn_id, "taken_at": now, "position": position}
        connection.execute(update(MESSAGE).where(*mine).values(**given))
    advance(connection, row.id, now, last_taken=row.last_taken + len(numbers))


def _message_of_task(connection: Connection, agent_id: UUID) -> Any:
    return connection.execute(_COLUMNS.where(MESSAGE.c.task_id == agent_id)).one_or_none()


def _first_waiting(connection: Connection, conversation: str) -> Any:
    """Return the message whose turn is next: one that interrupts, else the first one."""
    c = MESSAGE.c
    query = (
        _COLUMNS.join(ACTIVITY, ACTIVITY.c.agent_id == c.task_id)
        .where(c.conversation_id == conversation, c.state == WAITING)
        .where(ACTIVITY.c.status.in_(ACTIVE_STATUSES))
        .order_by(_rank(), c.number)
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def _rank() -> Any:
    return case((MESSAGE.c.if_busy == "interrupt", 0), else_=1)


def _comes_before(first: Any, own: Any) -> bool:
    return (first.if_busy != "interrupt", first.number) < (own.if_busy != "interrupt", own.number)


def _exchange(connection: Connection, own: Any, first: Any) -> bool:
    """Give two messages each other's task, and the tasks each other's context; False if that of the first has just ended."""
    ids = sorted([own.task_id, first.task_id], key=lambda agent_id: agent_id.int)
    query = select(ACTIVITY.c.agent_id, ACTIVITY.c.context, ACTIVITY.c.status)
    tasks = {
        row.agent_id: row
        for row in connection.execute(query.where(ACTIVITY.c.agent_id.in_(ids)).with_for_update())
    }
    if first.task_id not in tasks or tasks[first.task_id].status not in ACTIVE_STATUSES:
        return False
    for message, other in ((own, first), (first, own)):
        mine = (MESSAGE.c.conversation_id == message.conversation_id, MESSAGE.c.number == message.number)
        exchanged = {"task_id": other.task_id, "state": WAITING}
        connection.execute(update(MESSAGE).where(*mine).values(**exchanged))
        task = update(ACTIVITY).where(ACTIVITY.c.agent_id == other.task_id)
        connection.execute(task.values(context=tasks[message.task_id].context))
    return True


def next_given(connection: Connection, conversation: str, position: int) -> Any:
    """Return the row of the message that was taken next after a position; None if there is none yet."""
    c = MESSAGE.c
    query = _COLUMNS.where(c.conversation_id == conversation, c.position > position)
    return connection.execute(query.order_by(c.position).limit(1)).one_or_none()


def last_given(connection: Connection, conversation: str) -> Any:
    """Return the row of the last turn's message, with the status of its task; None before the first turn."""
    c = MESSAGE.c
    query = (
        select(c.position, ACTIVITY.c.status)
        .outerjoin_from(MESSAGE, ACTIVITY, ACTIVITY.c.agent_id == c.turn_id)
        .where(c.conversation_id == conversation, c.position.is_not(None))
        .order_by(c.position.desc())
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def find_message(connection: Connection, conversation: str, number: int) -> ConversationMessage | None:
    """Return a message by its number."""
    query = _COLUMNS.where(MESSAGE.c.conversation_id == conversation, MESSAGE.c.number == number)
    row = connection.execute(query).one_or_none()
    return None if row is None else message_of(row)


def read_messages(
    connection: Connection, conversation: str, *, limit: int, before: int | None = None
) -> list[ConversationMessage]:
    """Return the last messages in their order, or the last ones before a number."""
    c = MESSAGE.c
    query = _COLUMNS.where(c.conversation_id == conversation).limit(limit)
    if before is not None:
        query = query.where(c.number < before)
    rows = connection.execute(query.order_by(c.number.desc())).all()
    return [message_of(row) for row in reversed(rows)]


def message_of(row: Any) -> ConversationMessage:
    """Return the message of a row."""
    return ConversationMessage(
        conversation=row.conversation_id,
        number=row.number,
        text=row.text,
        if_busy=row.if_busy,
        state=row.state,
        agent_id=row.turn_id or row.task_id,
        created_at=row.created_at,
        taken_at=row.taken_at,
    )
