"""The record store of PostgreSQL: the usual insert, start and end of tasks in one round trip each.

Each statement restates rules of the general store in SQL, for tasks that need no decision. One suite of tests runs
against both stores and compares the rows. A statement locks its rows in key order, as all transactions do, and writes
only those that are still in the expected state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from agentexec.activity.changes.admissions import Admitted, StartTerms
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.changes.postgres_insert import insert_in_one_statement
from agentexec.activity.changes.progress import Progress
from agentexec.activity.changes.statements import ACTIVITY, FOLLOW_UP, LOG, RESULT
from agentexec.activity.changes.store import Recorded, RecordStore, complete_alike
from agentexec.db.round_trips import can_batch, run_in_one_round_trip
from agentexec.payloads.sealing import seal
from agentexec.policy import MAX_EPOCH_LEAD, CrashCounts
from agentexec.state.answers import PushStatement
from agentexec.task import Lease, Status

LOCKED = f"""locked AS MATERIALIZED (
    SELECT agent_id, status, epoch, crashes, agent_type, queue, expires_at, updated_at, run_at, webhook, lock_key,
        started_at, debounce_key, concurrency_key, held_lock, version
    FROM {ACTIVITY.name}
    WHERE agent_id = ANY(%(ids)s::uuid[])
    ORDER BY agent_id FOR UPDATE{{skip}}
)"""  # noqa: S608 - the name of our table
"""The rows, by key alone; conditions follow. Asked for a status too, a planner may read all rows with that status."""

START = f"""
WITH claimed AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(epochs)s::integer[]) AS claim (agent_id, epoch)
), {LOCKED.format(skip=" SKIP LOCKED")}, fresh AS MATERIALIZED (
    SELECT agent_id, claimed.epoch, greatest(updated_at, run_at) AS queued_at FROM locked JOIN claimed USING (agent_id)
    WHERE status = '{Status.QUEUED.name}' AND locked.epoch < claimed.epoch AND crashes = 0
        AND (expires_at IS NULL OR expires_at > %(now)s)
        AND (lock_key IS NOT NULL OR agent_type <> ALL(%(lock_names)s::text[]))
        AND (concurrency_key IS NOT NULL OR agent_type <> ALL(%(limit_names)s::text[]))
        AND (lock_key IS NULL OR held_lock IS NOT NULL
            OR NOT EXISTS (SELECT 1 FROM {ACTIVITY.name} holder WHERE holder.held_lock = locked.lock_key))
        AND (debounce_key IS NULL OR started_at IS NOT NULL OR run_at IS NULL OR run_at <= %(now)s)
        AND (NOT %(pinned)s::boolean OR CASE WHEN version IS NULL THEN agent_type <> ALL(%(outdated)s::text[])
            ELSE version = coalesce(%(versions)s::jsonb ->> agent_type, %(version)s::text) END)
        AND (%(names)s::text[] IS NULL OR agent_type = ANY(%(names)s::text[]))
        AND (%(queue)s::text IS NULL OR queue = %(queue)s AND claimed.epoch::bigint - locked.epoch <= {MAX_EPOCH_LEAD})
), started AS (
    UPDATE {ACTIVITY.name} a
    SET status = '{Status.RUNNING.name}', epoch = fresh.epoch, attempt = a.attempt + 1, message = %(message)s,
        started_at = coalesce(a.started_at, %(now)s), updated_at = %(now)s, expires_at = NULL,
        held_lock = a.lock_key, error = NULL,
        version = coalesce(a.version, %(versions)s::jsonb ->> a.agent_type, %(version)s::text)
    FROM fresh WHERE a.agent_id = fresh.agent_id
    RETURNING a.agent_id, a.agent_type, a.context, a.attempt, a.percentage, fresh.queued_at, a.trace_context,
        a.budget
), line AS (
    INSERT INTO {LOG.name} (activity_id, created_at, status, message, percentage)
    SELECT agent_id, %(now)s, '{Status.RUNNING.name}', %(message)s, percentage FROM started
)
SELECT agent_id, agent_type, context, attempt, queued_at, trace_context, budget FROM started
"""  # noqa: S608 - the names of our tables

END = f"""
WITH ending AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(epochs)s::integer[], %(results)s::text[]) AS e (agent_id, epoch, result)
), {LOCKED.format(skip="")}, held AS MATERIALIZED (
    SELECT agent_id, epoch, result, queue, webhook FROM locked JOIN ending USING (agent_id, epoch)
    WHERE status = '{Status.RUNNING.name}'
), ended AS (
    UPDATE {ACTIVITY.name} a
    SET status = '{Status.COMPLETE.name}', percentage = 100, message = %(message)s, error = NULL, updated_at = %(now)s,
        finished_at = %(now)s, run_at = NULL, held_lock = NULL
    FROM held WHERE a.agent_id = held.agent_id
    RETURNING a.agent_id
), line AS (
    INSERT INTO {LOG.name} (activity_id, created_at, status, message, percentage)
    SELECT agent_id, %(now)s, '{Status.COMPLETE.name}', %(message)s, 100 FROM ended
), kept AS (
    INSERT INTO {RESULT.name} (agent_id, value, expires_at)
    SELECT agent_id, result, %(expires)s FROM held WHERE result IS NOT NULL
), followed AS (
    INSERT INTO {FOLLOW_UP.name} (agent_id, queue, created_at, is_failure)
    SELECT agent_id, queue, %(now)s, false FROM held WHERE webhook IS NOT NULL AND queue IS NOT NULL
){{acknowledged}}
SELECT agent_id FROM ended
"""  # noqa: S608 - the names of our tables

ACKNOWLEDGED = """, acknowledged AS (
    DELETE FROM {queue} q USING held
    WHERE q.agent_id = ANY(%(ids)s::uuid[]) AND q.agent_id = held.agent_id AND q.epoch = held.epoch AND q.grouped = 0
)"""
"""Removal of those tasks from the queue that the statement ends; those with groups are left to the queue's own call."""


class PostgresRecordStore(RecordStore):
    """Record store of PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._can_batch = can_batch(engine.dialect)

    def insert(
        self,
        tasks: Sequence[NewTask],
        now: datetime,
        *,
        push: Callable[[Connection], None] | None = None,
        push_statement: PushStatement | None = None,
    ) -> bool:
        """Add tasks in one round trip."""
        if self._can_batch and (push is None or push_statement is not None):
            return insert_in_one_statement(self._engine, tasks, now, push_statement)
        return super().insert(tasks, now, push=push)

    def start_fresh(self, claims: Sequence[Lease], terms: StartTerms) -> list[Admitted]:
        """Make fresh tasks RUNNING in one round trip."""
        if not self._can_batch:
            return super().start_fresh(claims, terms)
        names, keys, versions = terms.task_names, terms.keys, terms.versions
        values = {
            "ids": [lease.agent_id for lease in claims],
            "epochs": [lease.epoch for lease in claims],
            "names": None if names is None else list(names),
            "queue": terms.queue,
            "lock_names": [] if keys is None else list(keys.lock_names),
            "limit_names": [] if keys is None else list(keys.limit_names),
            "versions": versions.by_task_text,
            "version": versions.default,
            "pinned": versions.is_pinned,
            "outdated": list(versions.outdated),
            "message": terms.message,
            "now": terms.now,
        }
        rows = {row[0]: row for row in run_in_one_round_trip(self._engine, START, values, relaxed=True)}
        started = ((lease, rows[lease.agent_id]) for lease in claims if lease.agent_id in rows)
        return [
            Admitted(lease, name, context, attempt, CrashCounts(), queued_at, trace, budget)
            for lease, (_, name, context, attempt, queued_at, trace, budget) in started
        ]

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
        """Write reports and endings; in one round trip if there are only tasks that completed alike."""
        needs_call = acknowledge is not None and queue_table is None
        needs_decision = bool(progress) or needs_call or skips_busy
        if needs_decision or not self._can_batch or not complete_alike(endings):
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
        values = _end_values(endings, now, result_ttl)
        statement = _end_statement(None if acknowledge is None else queue_table)
        written = {row[0] for row in run_in_one_round_trip(self._engine, statement, values, relaxed=relaxed)}
        return Recorded([ending.lease for ending in endings if ending.lease.agent_id not in written], [])


def _end_values(endings: Sequence[Ending], now: datetime, result_ttl: int) -> dict[str, Any]:
    return {
        "ids": [ending.lease.agent_id for ending in endings],
        "epochs": [ending.lease.epoch for ending in endings],
        "results": [None if ending.result is None else seal(ending.result) for ending in endings],
        "message": endings[0].message,
        "now": now,
        "expires": now + timedelta(seconds=result_ttl),
    }


@functools.cache
def _end_statement(queue_table: str | None) -> str:
    acknowledged = "" if queue_table is None else ACKNOWLEDGED.format(queue=queue_table)
    return END.format(acknowledged=acknowledged)
