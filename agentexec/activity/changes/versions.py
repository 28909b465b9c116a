"""Versions of a worker's tasks, which the record keeps of each run that they begin, and which may decide who runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from agentexec.activity.models import Meta, WorkerProcess, queues_of
from agentexec.activity.version_reports import VersionReport, read_report
from agentexec.db.transactions import reading, writing

META: Any = Meta.__table__

PREFIX = "versions:"
"""Prefix of the names in `meta` at which the first worker with a set of versions is noted."""

REMOVAL = timedelta(days=365)
"""Time after which such a note is removed."""

NONE: Mapping[str, str] = MappingProxyType({})


class Versions:
    """Versions of the tasks that a worker has.

    Args:
        default: Version of the tasks that have none of their own.
        by_task: Versions of single tasks, by name. It may grow.
        is_pinned: The worker runs only what began with these versions or without one, and what nobody has begun.
    """

    def __init__(
        self, default: str | None = None, by_task: Mapping[str, str] = NONE, *, is_pinned: bool = False
    ) -> None:
        self.default = default
        self.is_pinned = is_pinned
        self.outdated: frozenset[str] = frozenset()
        """Names of the tasks of which live workers have a newer version: it begins the new ones."""
        self._by_task = by_task

    def of(self, task_name: str) -> str | None:
        """Return the version of a task."""
        return self._by_task.get(task_name, self.default)

    def leaves(self, row: Any) -> bool:
        """Return True for a task that is left for workers of another version."""
        if not self.is_pinned:
            return False
        if row.version is None:
            return row.agent_type in self.outdated
        return bool(row.version != self.of(row.agent_type))

    @property
    def by_task_text(self) -> str:
        """The versions of single tasks as JSON."""
        return json.dumps(dict(self._by_task)) if self._by_task else "{}"


NO_VERSIONS = Versions()
"""Versions of a worker whose tasks have none."""


def waiting_message(version: str) -> str:
    """Return the line in the log of a run that is left for workers of its version. The row keeps it, with its time."""
    return f"Waiting for a worker of version {version}."


def make_report(
    engine: Engine, versions: Versions, task_names: Collection[str], now: datetime
) -> VersionReport | None:
    """Return the report of a worker, and note when it is the first one with its versions. Raises UnavailableError."""
    tasks = {name: version for name in task_names if (version := versions.of(name)) is not None}
    if not tasks:
        return None
    key = PREFIX + hashlib.sha256(json.dumps(sorted(tasks.items())).encode()).hexdigest()
    since = _noted_since(engine, key)
    if since is None:
        try:
            with writing(engine, relaxed=True) as connection:
                connection.execute(insert(META).values(name=key, value=json.dumps(now.timestamp())))
                _remove_old(connection, now)
            since = now.timestamp()
        except IntegrityError:
            since = _noted_since(engine, key) or now.timestamp()
    return VersionReport(tasks, versions.is_pinned, since)


def _noted_since(engine: Engine, key: str) -> float | None:
    with reading(engine) as connection:
        text = connection.execute(select(META.c.value).where(META.c.name == key)).scalar()
    return None if text is None else _number(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _remove_old(connection: Connection, now: datetime) -> None:
    rows = connection.execute(select(META.c.name, META.c.value).where(META.c.name.startswith(PREFIX)))
    before = (now - REMOVAL).timestamp()
    old = [row.name for row in rows if _number(row.value) < before]
    if old:
        connection.execute(delete(META).where(META.c.name.in_(old)))


def outdated_names(
    engine: Engine, own: VersionReport, worker_id: str, queues: Collection[str], seen_after: datetime
) -> frozenset[str]:
    """Return the tasks of which other live workers of these queues have a newer version. Raises UnavailableError."""
    c: Any = WorkerProcess.__table__.c
    query = select(c.worker_id, c.queue, c.queues, c.versions).where(
        c.versions.is_not(None), c.draining.is_(False), c.seen_at > seen_after, c.worker_id != worker_id
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    others = (read_report(row.versions) for row in rows if not {*queues}.isdisjoint(queues_of(row)))
    return frozenset(_outdated(own, (other for other in others if other is not None)))


def _outdated(own: VersionReport, others: Iterable[VersionReport]) -> Iterable[str]:
    for other in others:
        if other.since > own.since:
            yield from (
                name for name, version in own.tasks.items() if other.tasks.get(name, version) != version
            )
