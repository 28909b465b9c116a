"""Names of the tasks that live workers have, as they report them, so that no task ends while some worker knows it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.activity.models import Meta
from agentexec.db.transactions import writing

log = logging.getLogger("agentexec.presence")

META: Any = Meta.__table__

PREFIX = "tasks:"
"""Prefix of the names in `meta`. Workers of one queue with the same tasks share a row."""

REPORT_SECONDS = 60.0
"""Seconds between two reports of a worker process."""

EXPIRY_SECONDS = 180.0
"""Seconds after which a report no longer counts."""

REMOVAL_SECONDS = 86_400.0
"""Seconds after which a report is removed."""


def report_served(engine: Engine, queue: str, task_names: Collection[str], now: datetime) -> None:
    """Record that a live worker of a queue has these tasks. Raises UnavailableError."""
    names = sorted(task_names)
    key = PREFIX + hashlib.sha256(json.dumps([queue, names]).encode()).hexdigest()
    value = json.dumps({"queue": queue, "tasks": names, "seen": now.timestamp()})
    with writing(engine, relaxed=True) as connection:
        if connection.execute(update(META).where(META.c.name == key).values(value=value)).rowcount:
            return
    try:
        with writing(engine, relaxed=True) as connection:
            connection.execute(insert(META).values(name=key, value=value))
            _remove_old(connection, now)
    except IntegrityError:
        log.debug("Another worker reported the same tasks in the same moment.")


def served_names(connection: Connection, queue: str, now: datetime) -> set[str]:
    """Return the names of the tasks that the live workers of a queue have."""
    return {
        str(name)
        for _, report in _reports(connection)
        if report["queue"] == queue and abs(now.timestamp() - report["seen"]) < EXPIRY_SECONDS
        for name in report["tasks"]
    }


def _remove_old(connection: Connection, now: datetime) -> None:
    # Reports from the future, or at no time at all, are not ours.
    old = [
        key
        for key, report in _reports(connection)
        if not abs(now.timestamp() - report["seen"]) <= REMOVAL_SECONDS
    ]
    if old:
        connection.execute(delete(META).where(META.c.name.in_(old)))


def _reports(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    """Return the reports of all queues: a few, one for each set of tasks that was deployed within a day."""
    rows = connection.execute(select(META.c.name, META.c.value).where(META.c.name.startswith(PREFIX))).all()
    reports: list[tuple[str, dict[str, Any]]] = []
    for key, value in rows:
        try:
            report = json.loads(value)
            reports.append(
                (
                    key,
                    {"queue": report["queue"], "tasks": list(report["tasks"]), "seen": float(report["seen"])},
                )
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            log.debug("A report of served tasks cannot be read and is left out.")
    return reports
