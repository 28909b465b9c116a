"""The steps of a task for people to read: each model call, tool call and pipeline step, without its contents."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from agentexec.journal.models import JournalEntry
from agentexec.journal.store import Kind

JOURNAL: Any = JournalEntry.__table__
MOST = 500


class Step(NamedTuple):
    """A recorded fact: where, what, when, and in which epoch."""

    path: str
    kind: Kind
    at: datetime
    epoch: int


def steps(db: Session, agent_id: UUID) -> list[Step]:
    """The newest 500 recorded facts of a task, oldest first."""
    query = (
        select(JOURNAL.c.path, JOURNAL.c.kind, JOURNAL.c.created_at, JOURNAL.c.epoch)
        .where(JOURNAL.c.agent_id == agent_id)
        .order_by(JOURNAL.c.created_at.desc(), JOURNAL.c.path.desc(), JOURNAL.c.seq.desc())
        .limit(MOST)
    )
    return [Step(row.path, Kind(row.kind), row.created_at, row.epoch) for row in db.execute(query)][::-1]
