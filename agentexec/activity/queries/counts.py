"""How many activities there are, in milliseconds also where there are a million.

What ended up to a moment hardly changes: the leading reconciler counts it now and then and remembers it, and a query
counts only what ended since, and what is active. Small tables are always counted whole.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, Meta
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.task import ACTIVE_STATUSES, FINAL_STATUSES, Status

META: Any = Meta.__table__
NAME = "activity_counts"
REMEMBERED = select(META.c.value).where(META.c.name == NAME)
CACHE_MIN_ROWS = 10_000
"""Ended activities below which they are counted each time."""

MARGIN = timedelta(seconds=60)
"""How far back of now what is remembered ends: transactions commit late, and clocks differ."""


class Remembered(NamedTuple):
    """What had ended up to a moment: numbers by task name and status."""

    until: datetime
    numbers: dict[tuple[str, str], int]


def total(db: Session, status: Status | None, agent_type: str | None) -> int:
    """The number of activities with a status, of a type; None: of any."""
    active = ACTIVE_STATUSES if status is None else ACTIVE_STATUSES & {status}
    final = FINAL_STATUSES if status is None else FINAL_STATUSES & {status}
    known = _parsed(db.scalar(REMEMBERED)) if final else None
    this_type = [] if agent_type is None else [Activity.agent_type == agent_type]
    parts = []
    number = 0
    if active:
        parts.append(_count(Activity.status.in_(active), *this_type))
    if final and known is None:
        parts.append(_count(Activity.status.in_(final), *this_type))
    elif final and known is not None:
        # As an expression: SQLite would go through all of the task name, and look at when each ended.
        late_type = [] if agent_type is None else [Activity.agent_type.concat("") == agent_type]
        parts.append(_count(Activity.status.in_(final), Activity.finished_at > known.until, *late_type))
        names = {one.value for one in final}
        number = sum(
            count
            for (kind, state), count in known.numbers.items()
            if state in names and agent_type in (None, kind)
        )
    return number + sum(db.execute(select(*parts)).one())


def _count(*conditions: ColumnElement[bool]) -> Any:
    return select(func.count()).select_from(Activity).where(*conditions).scalar_subquery()


def refresh(engine: Engine) -> None:
    """Count what has ended. Raises UnavailableError."""
    until = utc_now() - MARGIN
    query = (
        select(Activity.agent_type, Activity.status, func.count().label("number"))
        .where(Activity.finished_at <= until)
        .group_by(Activity.agent_type, Activity.status)
    )
    with reading(engine) as connection:
        rows = [row for row in connection.execute(query) if row.status in FINAL_STATUSES]
    with writing(engine) as connection:
        invalidate(connection)
        if sum(row.number for row in rows) > CACHE_MIN_ROWS:
            numbers = [[row.agent_type, row.status.value, row.number] for row in rows]
            value = json.dumps({"until": until.isoformat(), "numbers": numbers})
            connection.execute(insert(Meta).values(name=NAME, value=value))


def invalidate(connection: Connection | Session) -> None:
    """What is remembered holds no longer: activities were removed."""
    connection.execute(delete(META).where(META.c.name == NAME))


def _parsed(text: str | None) -> Remembered | None:
    """None also for what cannot be read: then everything is counted."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        numbers = {(str(kind), str(status)): int(number) for kind, status, number in value["numbers"]}
        until = datetime.fromisoformat(value["until"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None if until.tzinfo is None else Remembered(until, numbers)
