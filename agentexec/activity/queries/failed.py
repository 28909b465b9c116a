"""Tasks that have finally failed: the newest, their groups by error, and those to retry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, func, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.task import Status

GROUPED_CHARACTERS = 500
"""Characters of a log line by which the newest failures are grouped."""


class FailedFilter(NamedTuple):
    """Filter of failed tasks; None does not filter by that field."""

    task_name: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    queue: str | None = None
    agent_ids: Sequence[UUID] | None = None
    error: str | None = None
    """Last log line, or its first GROUPED_CHARACTERS: that of a group."""

    newest: int | None = None
    """Number of failed tasks, the newest by creation, among which to look; None for all."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of a query."""
        found = [Activity.status == Status.ERROR, Activity.queue.is_not(None)]
        if self.task_name is not None:
            found.append(Activity.agent_type == self.task_name)
        if self.since is not None:
            found.append(Activity.finished_at >= self.since)
        if self.until is not None:
            found.append(Activity.finished_at <= self.until)
        if self.queue is not None:
            found.append(Activity.queue == self.queue)
        if self.agent_ids is not None:
            found.append(Activity.agent_id.in_(self.agent_ids))
        if self.error is not None:
            line = func.substr(func.coalesce(Activity.message, ""), 1, GROUPED_CHARACTERS)
            found.append(line == self.error[:GROUPED_CHARACTERS])
        return [*found, *metadata_conditions(self.metadata)]


def _select(wanted: FailedFilter, *columns: Any) -> Select[Any]:
    """Return a query of the tasks that match."""
    query = select(*columns).where(*wanted.conditions())
    if wanted.newest is None:
        return query
    # By the order of an index: no more rows than these are read.
    window = _newest(wanted).limit(wanted.newest).subquery("newest")
    return query.join(window, window.c.agent_id == Activity.agent_id)


def _newest(wanted: FailedFilter) -> Select[Any]:
    conditions = [Activity.status == Status.ERROR]
    if wanted.task_name is not None:
        conditions.append(Activity.agent_type == wanted.task_name)
    order = (Activity.created_at.desc(), Activity.agent_id.desc())
    return select(Activity.agent_id.label("agent_id")).where(*conditions).order_by(*order)


def looks_everywhere(db: Session, wanted: FailedFilter) -> bool:
    """Return False if there are more failed tasks than those among which a filter looks."""
    if wanted.newest is None:
        return True
    window = _newest(wanted).limit(wanted.newest + 1).subquery()
    return (db.scalar(select(func.count()).select_from(window)) or 0) <= wanted.newest


class FailedGroup(NamedTuple):
    """Failed tasks of one name whose last log line is the same."""

    task_name: str
    message: str
    count: int
    latest: datetime | None
    example: UUID


def count_failed(db: Session, wanted: FailedFilter, maximum: int | None = None) -> int:
    """Return the number of tasks that match, up to `maximum`."""
    found = _select(wanted, Activity.agent_id).limit(maximum).subquery()
    return db.scalar(select(func.count()).select_from(found)) or 0


def newest_failed(db: Session, wanted: FailedFilter, limit: int) -> list[Any]:
    """Return rows of the tasks that failed last, newest first."""
    columns = (
        Activity.agent_id,
        Activity.agent_type,
        Activity.queue,
        Activity.attempt,
        Activity.crashes,
        Activity.created_at,
        Activity.finished_at,
        Activity.message,
        Activity.error,
        Activity.metadata_.label("labels"),
    )
    order = (Activity.finished_at.desc(), Activity.agent_id)
    return list(db.execute(_select(wanted, *columns).order_by(*order).limit(limit)))


def failed_groups(db: Session, wanted: FailedFilter, limit: int) -> list[FailedGroup]:
    """Return the largest groups of failed tasks by name and error."""
    if wanted.newest is not None:
        return _groups_of_window(db, wanted)[:limit]
    columns = (Activity.agent_type, Activity.message, Activity.finished_at)
    failed = _select(wanted, *columns).subquery()
    number, latest = func.count(), func.max(failed.c.finished_at)
    query = (
        select(failed.c.agent_type, failed.c.message, number, latest)
        .group_by(failed.c.agent_type, failed.c.message)
        .order_by(number.desc(), latest.desc())
        .limit(limit)
    )
    return [
        FailedGroup(name, message or "", count, at, _example(db, wanted, name, message))
        for name, message, count, at in db.execute(query).all()
    ]


def _groups_of_window(db: Session, wanted: FailedFilter) -> list[FailedGroup]:
    """Return all groups, largest first: a few thousand rows are grouped faster here than their examples are found."""
    message = func.substr(Activity.message, 1, GROUPED_CHARACTERS)
    columns = (Activity.agent_type, message, Activity.finished_at, Activity.agent_id)
    groups: dict[tuple[str, str], list[Any]] = {}
    rows: Any = db.execute(_select(wanted, *columns))
    for name, text, at, agent_id in rows:
        group = groups.setdefault((name, text or ""), [0, at, agent_id])
        group[0] += 1
        if at is not None and (group[1] is None or at > group[1]):
            group[1:] = at, agent_id
    found = [FailedGroup(*key, *group) for key, group in groups.items()]
    return sorted(found, key=lambda group: group.count, reverse=True)


def _example(db: Session, wanted: FailedFilter, name: str, message: str | None) -> UUID:
    same = (Activity.agent_type == name, Activity.message == message)
    query = _select(wanted, Activity.agent_id).where(*same)
    return db.scalars(query.order_by(Activity.finished_at.desc()).limit(1)).first() or UUID(int=0)


def lock_failed(connection: Connection, wanted: FailedFilter, limit: int) -> list[UUID]:
    """Lock the rows of the tasks that failed first, and return their ids."""
    query = select(Activity.agent_id).where(*wanted.conditions())
    first = query.order_by(Activity.finished_at, Activity.agent_id).limit(limit)
    if not (ids := connection.execute(first).scalars().all()):
        return []
    # In key order, as all transactions lock rows; the conditions again, as others may retry the same tasks.
    locked = query.where(Activity.agent_id.in_(ids)).order_by(Activity.agent_id).with_for_update()
    return list(connection.execute(locked).scalars())
