"""The record store of SQLite: the usual start and end of tasks in few statements, which the driver runs by itself.

Each restates rules of the general store in SQL, for tasks that need no decision. One suite of tests runs against both stores
and compares the rows. A `+` before a column keeps SQLite from searching by it: rows are found by their keys.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from agentexec.activity.changes.admissions import Admitted, StartTerms, startable_since
from agentexec.activity.changes.crashes import NO_CRASHES
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.progress import Progress
from agentexec.activity.changes.statements import ACTIVITY, LOG, RESULT, statements_for
from agentexec.activity.changes.store import (
    Acknowledge,
    Recorded,
    RecordStore,
    complete_alike,
    refused_leases,
)
from agentexec.db.quick_connection import QuickConnection
from agentexec.db.transactions import writing
from agentexec.payloads.sealing import seal
from agentexec.task import Lease, Status

IN_IDS = "agent_id IN (SELECT value FROM json_each(?))"

FRESH = f"""
SELECT agent_id, epoch, agent_type, queue, percentage, context, attempt, updated_at, run_at, trace_context, budget,
    concurrency_key, version
FROM {ACTIVITY.name} WHERE {IN_IDS} AND +status = '{Status.QUEUED.name}' AND crashes = 0 AND crashes_in_row = 0
    AND +expires_at IS NULL AND +debounce_key IS NULL AND lock_key IS NULL
"""  # noqa: S608 - the names of our tables

START = f"""
UPDATE {ACTIVITY.name} SET status = '{Status.RUNNING.name}', epoch = ?, attempt = attempt + 1, message = ?,
    started_at = coalesce(started_at, ?), updated_at = ?, error = NULL, version = coalesce(version, ?)
WHERE {IN_IDS}
"""  # noqa: S608 - the names of our tables

END = f"""
UPDATE {ACTIVITY.name} SET status = '{Status.COMPLETE.name}', percentage = 100, message = ?, error = NULL, updated_at = ?,
    finished_at = ?, run_at = NULL, held_lock = NULL
WHERE {IN_IDS} AND epoch = ? AND +status = '{Status.RUNNING.name}' RETURNING agent_id, webhook
"""  # noqa: S608 - the names of our tables; not `webhook IS NOT NULL`, which SQLite 3.40 returns as true in any case

INSERT_LINES = f"""
INSERT INTO {LOG.name} (activity_id, created_at, status, message, percentage) SELECT value, ?, ?, ?, ? FROM json_each(?)
"""  # noqa: S608 - the names of our tables

INSERT_RESULTS = f"INSERT INTO {RESULT.name} (agent_id, value, expires_at) VALUES (?, ?, ?)"  # noqa: S608 - the name of our table

RETURNING_SINCE = (3, 35)
"""First release of SQLite with RETURNING."""


class Fresh(NamedTuple):
    """Row of a task that waits and never crashed, as SQLite has it. The stored form of moments sorts by time."""

    agent_id: str
    epoch: int
    agent_type: str
    queue: str | None
    percentage: int
    context: str | None
    attempt: int
    updated_at: str
    run_at: str | None
    trace_context: str | None
    budget: str | None
    concurrency_key: str | None
    version: str | None


class SqliteRecordStore(RecordStore):
    """Record store of SQLite, with Python's own driver."""

    starts_within = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        dbapi: Any = engine.dialect.loaded_dbapi
        self._returns = dbapi.sqlite_version_info >= RETURNING_SINCE

    def start_within(
        self, connection: Connection, claims: Sequence[Lease], terms: StartTerms
    ) -> list[Admitted]:
        """Make those claimed tasks RUNNING that need no decision, within a transaction, and return them."""
        if not isinstance(connection, QuickConnection) or not connection.is_quick:
            return []
        leases = {lease.agent_id.hex: lease for lease in claims}
        rows = {row[0]: Fresh(*row) for row in connection.run(FRESH, (json.dumps([*leases]),))}
        groups: dict[tuple[int, int, str | None], list[str]] = defaultdict(list)
        started: list[Admitted] = []
        try:
            for agent_id, lease in leases.items():
                row = rows.get(agent_id)
                if row is None or not _may_start(row, lease, terms):
                    continue
                since = datetime.fromisoformat(startable_since(row)).replace(tzinfo=UTC)
                started.append(Admitted.from_row(row, lease, NO_CRASHES, since))
                groups[lease.epoch, row.percentage, terms.versions.of(row.agent_type)].append(agent_id)
        except (TypeError, ValueError):
            return []  # somebody else has written to a row; the others must not wait for it
        moment = _stored_time(terms.now)
        for (epoch, percentage, version), agent_ids in groups.items():
            ids = json.dumps(agent_ids)
            connection.run(START, (epoch, terms.message, moment, moment, version, ids))
            line = (moment, Status.RUNNING.name, terms.message, percentage, ids)
            connection.run(INSERT_LINES, line)
        return started

    def complete_within(
        self,
        connection: Connection,
        endings: Sequence[Ending],
        now: datetime,
        result_ttl: int,
        acknowledge: Acknowledge | None,
    ) -> list[Ending] | None:
        """Complete tasks, which have one message, within a transaction, and return the endings that are written."""
        if not self._returns or not isinstance(connection, QuickConnection) or not connection.is_quick:
            return None
        written = _complete(connection, endings, now, result_ttl)
        if acknowledge is not None and written:
            acknowledge(connection, written)
        return written

    def record(
        self,
        progress: Sequence[Progress],
        endings: Sequence[Ending],
        *,
        now: datetime,
        result_ttl: int,
        relaxed: bool = False,
        acknowledge: Acknowledge | None = None,
        queue_table: str | None = None,
        skips_busy: bool = False,
    ) -> Recorded:
        """Write reports and endings; in few statements if there are only tasks that completed alike."""
        if not progress and self._returns and complete_alike(endings):
            with writing(self._engine, relaxed=relaxed) as connection:
                written = self.complete_within(connection, endings, now, result_ttl, acknowledge)
                if written is not None:
                    return Recorded(refused_leases(endings, written), [])
        return super().record(
            progress,
            endings,
            now=now,
            result_ttl=result_ttl,
            relaxed=relaxed,
            acknowledge=acknowledge,
            queue_table=queue_table,
            skips_busy=skips_busy,
        )


def _may_start(row: Fresh, lease: Lease, terms: StartTerms) -> bool:
    """Return True if the policy starts a task whatever else is known."""
    if row.epoch >= lease.epoch or not all(terms.fits(row, lease)):
        return False
    keys = terms.keys
    return keys is None or not (
        row.agent_type in keys.lock_names
        or (row.concurrency_key is None and row.agent_type in keys.limit_names)
    )


def _complete(
    connection: QuickConnection, endings: Sequence[Ending], now: datetime, result_ttl: int
) -> list[Ending]:
    """Complete tasks, which have one message, and return the endings that are written."""
    by_epoch: dict[int, dict[str, Ending]] = defaultdict(dict)
    for ending in endings:
        by_epoch[ending.lease.epoch][ending.lease.agent_id.hex] = ending
    moment, message = _stored_time(now), endings[0].message
    expires = _stored_time(now + timedelta(seconds=result_ttl))
    written: list[Ending] = []
    for epoch, group in by_epoch.items():
        rows = connection.run(END, (message, moment, moment, json.dumps([*group]), epoch))
        ended = [row[0] for row in rows]
        connection.run(INSERT_LINES, (moment, Status.COMPLETE.name, message, 100, json.dumps(ended)))
        connection.run_many(INSERT_RESULTS, _results(group, ended, expires))
        if webhooks := [group[agent_id].lease.agent_id for agent_id, url in rows if url is not None]:
            connection.execute(statements_for(connection).follow_others, {"ids": webhooks, "now": now})
        written += [group[agent_id] for agent_id in ended]
    return written


def _results(group: Mapping[str, Ending], ended: Sequence[str], expires: str) -> list[tuple[str, str, str]]:
    return [
        (agent_id, seal(result), expires)
        for agent_id in ended
        if (result := group[agent_id].result) is not None
    ]


def _stored_time(moment: datetime) -> str:
    """Return a moment in the form in which SQLAlchemy stores it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
