"""The open waits of one task, as the journal has them, for people to read."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from agentexec.db.clock import utc_now
from agentexec.journal.canonical import digest
from agentexec.journal.facts import FactKind
from agentexec.journal.models import EventWait, JournalEntry

MAX_WAITS = 100
"""Highest number of events, and of recorded sleeps, that are read."""


class AwaitedEvent(NamedTuple):
    """An event that a task waits for; `expires_at` is None for a wait without a time limit."""

    name: str
    key: str
    expires_at: datetime | None


def awaited_events(db: Session, agent_id: UUID) -> list[AwaitedEvent]:
    """Return the events that a task waits for, the longest awaited first."""
    query = select(EventWait.name, EventWait.key, EventWait.expires_at).where(
        EventWait.agent_id == agent_id,
        EventWait.event_id.is_(None),
        or_(EventWait.expires_at.is_(None), EventWait.expires_at > utc_now()),
    )
    rows = db.execute(query.order_by(EventWait.created_at, EventWait.path).limit(MAX_WAITS))
    return [AwaitedEvent(*row) for row in rows]


def sleeps_until(db: Session, agent_id: UUID) -> datetime | None:
    """Return the end of the sleep that ends first among those that a task is in; None if it does not sleep."""
    journal: Any = JournalEntry.__table__
    query = select(journal.c.value).where(
        journal.c.agent_id == agent_id,
        journal.c.kind == FactKind.OUTCOME.value,
        journal.c.input_hash == digest("sleep"),
    )
    now = utc_now()
    ends = [
        _read_end(value) for value in db.scalars(query.order_by(journal.c.created_at.desc()).limit(MAX_WAITS))
    ]
    return min((end for end in ends if end is not None and end > now), default=None)


def _read_end(value: str) -> datetime | None:
    try:
        end = datetime.fromisoformat(json.loads(value))
    except (ValueError, TypeError, RecursionError):
        return None
    return end if end.tzinfo is not None else None
