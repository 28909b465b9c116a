"""Runs that were given up for a new one, as the history tells of them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.orm import Session

from agentexec.db.transactions import reading
from agentexec.journal.models import JournalHistory

HISTORY: Any = JournalHistory.__table__

GIVEN_UP_PATH = "/given-up"
"""Place of the fact in the history."""


class GivenUpRun(NamedTuple):
    """A run of a task that was given up for a new one."""

    number: int
    at: datetime
    version: str | None
    """Version of the code that could not replay it."""
    reason: str
    facts: int
    """The number of facts that history has of it."""


def given_up_runs(db: Session | Connection, agent_id: UUID) -> list[GivenUpRun]:
    """Return the runs of a task that were given up, oldest first."""
    mine = HISTORY.c.agent_id == agent_id
    query = select(HISTORY).where(mine, HISTORY.c.path == GIVEN_UP_PATH).order_by(HISTORY.c.run)
    rows = db.execute(query).all()
    if not rows:
        return []
    counts = select(HISTORY.c.run, func.count().label("number")).where(mine).group_by(HISTORY.c.run)
    numbers = {row.run: row.number - 1 for row in db.execute(counts)}
    return [_given_up_run(row, numbers.get(row.run, 0)) for row in rows]


def _given_up_run(row: Any, facts: int) -> GivenUpRun:
    value = json.loads(row.value)
    return GivenUpRun(row.run, row.created_at, value.get("version"), str(value.get("reason", "")), facts)


def read_given_up(engine: Engine, agent_id: UUID) -> list[GivenUpRun]:
    """Return the runs of a task that were given up. Raises UnavailableError."""
    with reading(engine) as connection:
        return given_up_runs(connection, agent_id)
