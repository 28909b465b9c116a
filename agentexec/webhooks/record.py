"""Webhook messages in the record: each is sent until it is delivered, refused, or too old."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, bindparam, insert, select, update
from sqlalchemy.orm import Session

from agentexec.activity.models import ActivityResult, WebhookMessage
from agentexec.db.transactions import reading, writing
from agentexec.task import Status, new_agent_id
from agentexec.webhooks.messages import EVENTS, make_body

MESSAGE: Any = WebhookMessage.__table__

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"

CLAIM_SECONDS = 60.0
"""Seconds for which a process that sends a message has it; after these it died, and another one sends the message again."""


DUE_MESSAGES = select(MESSAGE.c.message_id, MESSAGE.c.next_at).where(
    MESSAGE.c.next_at <= bindparam("now", type_=MESSAGE.c.next_at.type)
)
"""Query of the messages that are due."""


class DueMessage(NamedTuple):
    """A message that this process is to send now. `attempts` counts this attempt."""

    message_id: UUID
    agent_id: UUID
    url: str
    body: str | None
    attempts: int


def add_message(connection: Connection, row: Any, now: datetime) -> None:
    """Add the message about an ended task, of whose activity `row` is."""
    result = None
    if row.status is Status.COMPLETE:
        query = select(ActivityResult.value).where(ActivityResult.agent_id == row.agent_id)
        result = connection.execute(query).scalar()
    add_notice(connection, row.agent_id, row.webhook, EVENTS[row.status], make_body(row, result), now)


def add_notice(
    connection: Connection, agent_id: UUID, url: str, event: str, body: str, now: datetime
) -> None:
    """Add a message about something else than a task's end."""
    values = {
        "message_id": new_agent_id(),
        "agent_id": agent_id,
        "url": url,
        "event": event,
        "body": body,
        "state": PENDING,
        "attempts": 0,
        "created_at": now,
        "updated_at": now,
        "next_at": now,
    }
    connection.execute(insert(MESSAGE).values(values))


def claim_due(engine: Engine, now: datetime, limit: int) -> list[DueMessage]:
    """Take messages that are due, the oldest first, so that no other process sends them."""
    oldest = DUE_MESSAGES.order_by(MESSAGE.c.next_at).limit(limit)
    with reading(engine) as connection:
        rows = connection.execute(oldest, {"now": now}).all()
    claimed: list[DueMessage] = []
    for row in rows:
        with writing(engine) as connection:
            mine = and_(MESSAGE.c.message_id == row.message_id, MESSAGE.c.next_at == row.next_at)
            values = {
                "next_at": now + timedelta(seconds=CLAIM_SECONDS),
                "updated_at": now,
                "attempts": MESSAGE.c.attempts + 1,
            }
            if connection.execute(update(MESSAGE).where(mine).values(**values)).rowcount == 1:
                columns = (MESSAGE.c[name] for name in DueMessage._fields)
                found = select(*columns).where(MESSAGE.c.message_id == row.message_id)
                claimed.append(DueMessage(*connection.execute(found).one()))
    return claimed


def note_outcome(
    engine: Engine, message: DueMessage, state: str, outcome: str, now: datetime, delay: float | None = None
) -> None:
    """Write what came of an attempt; `delay` is in seconds until the next one."""
    values: dict[str, Any] = {"state": state, "outcome": outcome, "updated_at": now}
    values["next_at"] = None if delay is None else now + timedelta(seconds=delay)
    if delay is None:
        values["body"] = None
    # Fenced by the attempt: a process that was stopped for long must not undo what another one has done.
    mine = and_(
        MESSAGE.c.message_id == message.message_id,
        MESSAGE.c.attempts == message.attempts,
        MESSAGE.c.state == PENDING,
    )
    with writing(engine) as connection:
        connection.execute(update(MESSAGE).where(mine).values(**values))


def give_up_url(engine: Engine, url: str, outcome: str, now: datetime) -> int:
    """End every message to a URL whose receiver is gone for good, and return their number."""
    values = {"state": FAILED, "outcome": outcome, "updated_at": now, "next_at": None, "body": None}
    with writing(engine) as connection:
        same = and_(MESSAGE.c.next_at.is_not(None), MESSAGE.c.url == url)
        return connection.execute(update(MESSAGE).where(same).values(**values)).rowcount


def messages_of(db: Session, agent_id: UUID) -> Sequence[Any]:
    """Return the messages about a task, oldest first, without their bodies."""
    columns = [column for column in MESSAGE.c if column.name != "body"]
    query = select(*columns).where(MESSAGE.c.agent_id == agent_id)
    return db.execute(query.order_by(MESSAGE.c.created_at, MESSAGE.c.message_id)).all()
