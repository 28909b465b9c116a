"""The record store of SQLite: the usual start and end of tasks in few statements, which the driver runs by itself.

Each restates rules of the general store in SQL, for tasks that need no decision. One suite of tests runs against both stores
and compares the rows. A `+` before a column keeps SQLite from searching by it: rows are found by their keys.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from agentexec.activity.changes.admissions import Admissions, Admitted
from agentexec.activity.changes.crashes import NO_CRASHES
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.postponements import TaskKeys
from agentexec.activity.changes.progress import Progress
from agentexec.activity.changes.statements import ACTIVITY, LOG, RESULT, statements_for
from agentexec.activity.changes.store import Recorded, RecordStore, complete_alike
from agentexec.activity.changes.versions import NO_VERSIONS, Versions
from agentexec.db.quick_connection import QuickConnection
from agentexec.db.transactions import writing
from agentexec.payloads.sealing import seal
from agentexec.policy import is_claim_of
from agentexec.task import Lease, Status

IN_IDS = "agent_id IN (SELECT value FROM json_each(?))"

FRESH = f"""
SELECT agent_id, epoch, agent_type, queue, percentage, context, attempt, updated_at, run_at, trace_context, budget,
    concurrency_key
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
    """Row of a task that waits and never crashed, as SQLite has it."""

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

    @property
    def queued_at(self) -> datetime:
        """The moment since which it could start."""
        # The stored form sorts by time.
        since = self.updated_at if self.run_at is None else max(self.updated_at, self.run_at)
        return datetime.fromisoformat(since).replace(tzinfo=UTC)


class SqliteRecordStore(RecordStore):
    """Record store of SQLite, with Python's own driver."""

    starts_within = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        dbapi: Any = engine.dialect.loaded_dbapi
        self._returns = dbapi.sqlite_version_info >= RETURNING_SINCE

    def start_within(
        self,
        connection: Connection,
        claims: Sequence[Lease],
        *,
        now: datetime,
        started_message: str,
        task_names: Collection[str] | None = None,
        queue: str | None = None,
        keys: TaskKeys | None = None,
        versions: Versions = NO_VERSIONS,
    ) -> list[Admitted]:
        """Make those claimed tasks RUNNING that need no decision, within a transaction, and return them."""
        if versions.is_pinned or not isinstance(connection, QuickConnection) or not connection.is_quick:
            return []
        leases = {lease.agent_id.hex: lease for lease in claims}
        rows = {row[0]: Fresh(*row) for row in connection.run(FRESH, (json.dumps([*leases]),))}
        groups: dict[tuple[int, int, str | None], list[str]] = defaultdict(list)
        started: list[Admitted] = []
        try:
            for agent_id, lease in leases.items():
                row = rows.get(agent_id)
                if row is None or not _may_start(row, lease, task_names, queue, keys):
                    continue
                started.append(_admitted(row, lease))
                groups[lease.epoch, row.percentage, versions.of(row.agent_type)].append(agent_id)
        except (TypeError, ValueError):
            return []  # somebody else has written to a row; the others must not wait for it
        moment = _stored_time(now)
        for (epoch, percentage, version), agent_ids in groups.items():
            ids = json.dumps(agent_ids)
            connection.run(START, (epoch, started_message, moment, moment, version, ids))
            line = (moment, Status.RUNNING.name, started_message, percentage, ids)
            connection.run(INSERT_LINES, line)
        return started

    def admit(
        self,
        claims: Sequence[Lease],
        *,
        now: datetime,
        started_message: str,
        max_crashes: int,
        suspect_running: bool,
        task_names: Collection[str] | None = None,
        queue: str | None = None,
        keys: TaskKeys | None = None,
        versions: Versions = NO_VERSIONS,
        starts_early: bool = False,
    ) -> Admissions:
        """Make claimed tasks RUNNING, those that need no decision first."""
        with writing(self._engine, relaxed=True) as connection:
            started = self.start_within(
                connection,
                claims,
                now=now,
                started_message=started_message,
                task_names=task_names,
                queue=queue,
                keys=keys,
                versions=versions,
            )
            fresh = {admitted.lease for admitted in started}
            others = [lease for lease in claims if lease not in fresh]
            if not others:
                return Admissions(started)
            admissions = self._admit(
                connection,
                others,
                now=now,
                started_message=started_message,
                max_crashes=max_crashes,
                suspect_running=suspect_running or bool(started),
                task_names=task_names,
                queue=queue,
                keys=keys,
                versions=versions,
                starts_early=starts_early,
            )
        admissions.started = [*started, *admissions.started]
        return admissions

    def record(
        self,
        progress: Sequence[Progress],
        endings: Sequence[Ending],
        *,
        now: datetime,
        result_ttl: int,
        relaxed: bool = False,
        acknowledge: Callable[[Connection, Sequence[Ending]], None] | None = None,
        queue_table: str | None = None,
        skips_busy: bool = False,
    ) -> Recorded:
        """Write reports and endings; in few statements if there are only tasks that completed alike."""
        if not progress and self._returns and complete_alike(endings):
            with writing(self._engine, relaxed=relaxed) as connection:
                if isinstance(connection, QuickConnection) and connection.is_quick:
                    written = _complete(connection, endings, now, result_ttl)
                    if acknowledge is not None and written:
                        acknowledge(connection, written)
                    refused = {*endings} - {*written} if len(written) < len(endings) else ()
                    return Recorded([ending.lease for ending in endings if ending in refused], [])
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


def _may_start(
    row: Fresh, lease: Lease, task_names: Collection[str] | None, queue: str | None, keys: TaskKeys | None
) -> bool:
    """Return True if the policy starts a task whatever else is known."""
    is_ours = is_claim_of(
        queue, recorded_queue=row.queue, recorded_epoch=row.epoch, claimed_epoch=lease.epoch
    )
    if not is_ours or row.epoch >= lease.epoch:
        return False
    if task_names is not None and row.agent_type not in task_names:
        return False
    return keys is None or not (
        row.agent_type in keys.lock_names
        or (row.concurrency_key is None and row.agent_type in keys.limit_names)
    )


def _admitted(row: Fresh, lease: Lease) -> Admitted:
    return Admitted(
        lease,
        row.agent_type,
        row.context,
        row.attempt + 1,
        NO_CRASHES,
        row.queued_at,
        row.trace_context,
        row.budget,
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
