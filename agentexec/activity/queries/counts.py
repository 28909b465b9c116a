"""Number of activities, within milliseconds even among a million.

Activities that ended before some moment hardly change. The leading reconciler counts them now and then and caches the
counts; a query counts only those that ended since, and the active ones, up to a limit. Small tables are always counted in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
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
"""Name of the row of `meta` that holds the cached counts."""

CACHED = select(META.c.value).where(META.c.name == NAME)
CACHE_MIN_ROWS = 10_000
"""Number of ended activities up to which they are counted each time."""

MAX_ACTIVE = 100_000
"""Number of activities of each active status that are counted: a backlog can be of any length."""

MARGIN = timedelta(seconds=60)
"""Age of the newest activities that are left out of the cache: transactions commit late, and clocks differ."""


class CachedCounts(NamedTuple):
    """Activities that had ended at a moment: their numbers by task name and status."""

    until: datetime
    numbers: dict[tuple[str, str], int]

    def number_of(self, statuses: AbstractSet[Status], task_name: str | None) -> int:
        """Return how many had one of the statuses and the task name (None: any)."""
        wanted = {status.value for status in statuses}
        return sum(
            number
            for (counted_name, status), number in self.numbers.items()
            if status in wanted and task_name in (None, counted_name)
        )


def total(
    db: Session, statuses: Iterable[Status], task_name: str | None, limit: int | None = None
) -> tuple[int, bool]:
    """Return how many activities have one of the statuses and a task name (None: any), and whether there are no more.

    `limit`: number of each active status up to which is counted, by default MAX_ACTIVE.
    """
    limit = MAX_ACTIVE if limit is None else limit
    wanted = frozenset(statuses)
    active, final = sorted(ACTIVE_STATUSES & wanted), FINAL_STATUSES & wanted
    cached = _parse(db.scalar(CACHED)) if final else None
    with_name = [] if task_name is None else [Activity.agent_type == task_name]
    parts = [_count_active(limit, Activity.status == status, *with_name) for status in active]
    known = 0
    if final and cached is None:
        parts.append(_count(Activity.status.in_(final), *with_name))
    elif final and cached is not None:
        parts.append(_count_ended_since(cached.until, final, task_name))
        known = cached.number_of(final, task_name)
    numbers = db.execute(select(*parts)).one() if parts else ()
    beyond = sum(number > limit for number in numbers[: len(active)])
    return known + sum(numbers) - beyond, not beyond


def _count(*conditions: ColumnElement[bool]) -> Any:
    return select(func.count()).select_from(Activity).where(*conditions).scalar_subquery()


def _count_active(limit: int, *conditions: ColumnElement[bool]) -> Any:
    """Return a query of a number up to `limit` + 1."""
    # In no order: without statistics of the table, PostgreSQL would sort the whole backlog for one.
    first = select(Activity.agent_id).where(*conditions).limit(limit + 1).subquery()
    return select(func.count()).select_from(first).scalar_subquery()


def _count_ended_since(moment: datetime, statuses: AbstractSet[Status], task_name: str | None) -> Any:
    # Name and status as expressions: by the plain columns, SQLite would read every activity of that name, and without
    # statistics, which nobody collects by default, every one that has ended.
    with_name = [] if task_name is None else [Activity.agent_type.concat("") == task_name]
    status = func.coalesce(Activity.status, Activity.status)
    return _count(status.in_(statuses), Activity.finished_at > moment, *with_name)


def refresh(engine: Engine) -> None:
    """Count the ended activities and cache the counts. Raises UnavailableError."""
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
    """Drop the cached counts, because activities are removed."""
    connection.execute(delete(META).where(META.c.name == NAME))


def _parse(text: str | None) -> CachedCounts | None:
    """Parse cached counts. Returns None for text that is not valid, so that everything is counted."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        numbers = {(str(name), str(status)): int(number) for name, status, number in value["numbers"]}
        until = datetime.fromisoformat(value["until"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None if until.tzinfo is None else CachedCounts(until, numbers)
