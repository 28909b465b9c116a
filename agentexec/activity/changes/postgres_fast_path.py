"""The usual start and the usual end of tasks on PostgreSQL, in one round trip each; `transitions` knows all others.

Each locks the rows in the order of their ids, as everything does, and writes what still is as it is thought to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Engine

from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.statements import ACTIVITY, LOG, RESULT
from agentexec.activity.changes.transitions import Admitted
from agentexec.db.round_trips import can_batch, run_in_one_round_trip
from agentexec.policy import CrashCounts
from agentexec.task import Lease, Status

LOCKED = f"""locked AS MATERIALIZED (
    SELECT agent_id, status, epoch, crashes FROM {ACTIVITY.name} WHERE agent_id = ANY(%(ids)s::uuid[])
    ORDER BY agent_id FOR UPDATE
)"""  # noqa: S608 - the name of our table
"""By the key alone, and the rest afterwards: asked for a status too, a planner may go through all that have it."""

START = f"""
WITH claimed AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(epochs)s::integer[]) AS claim (agent_id, epoch)
), {LOCKED}, fresh AS MATERIALIZED (
    SELECT agent_id, claimed.epoch FROM locked JOIN claimed USING (agent_id)
    WHERE status = '{Status.QUEUED.name}' AND locked.epoch < claimed.epoch AND crashes = 0
), started AS (
    UPDATE {ACTIVITY.name} a
    SET status = '{Status.RUNNING.name}', epoch = fresh.epoch, attempt = a.attempt + 1, message = %(message)s,
        started_at = coalesce(a.started_at, %(now)s), updated_at = %(now)s, error = NULL
    FROM fresh WHERE a.agent_id = fresh.agent_id
    RETURNING a.agent_id, a.agent_type, a.context, a.attempt, a.percentage
), line AS (
    INSERT INTO {LOG.name} (activity_id, created_at, status, message, percentage)
    SELECT agent_id, %(now)s, '{Status.RUNNING.name}', %(message)s, percentage FROM started
)
SELECT agent_id, agent_type, context, attempt FROM started
"""  # noqa: S608 - the names of our tables

END = f"""
WITH ending AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(epochs)s::integer[], %(results)s::text[]) AS e (agent_id, epoch, result)
), {LOCKED}, held AS MATERIALIZED (
    SELECT agent_id, result FROM locked JOIN ending USING (agent_id, epoch) WHERE status = '{Status.RUNNING.name}'
), ended AS (
    UPDATE {ACTIVITY.name} a
    SET status = '{Status.COMPLETE.name}', percentage = 100, message = %(message)s, error = NULL, updated_at = %(now)s,
        finished_at = %(now)s, run_at = NULL
    FROM held WHERE a.agent_id = held.agent_id
    RETURNING a.agent_id
), line AS (
    INSERT INTO {LOG.name} (activity_id, created_at, status, message, percentage)
    SELECT agent_id, %(now)s, '{Status.COMPLETE.name}', %(message)s, 100 FROM ended
), kept AS (
    INSERT INTO {RESULT.name} (agent_id, value, expires_at)
    SELECT agent_id, result, %(expires)s FROM held WHERE result IS NOT NULL
)
SELECT agent_id FROM ended
"""  # noqa: S608 - the names of our tables


def start_fresh_tasks(
    engine: Engine, claims: Sequence[Lease], *, now: datetime, started_message: str
) -> list[Admitted]:
    """Make the fresh ones of claimed tasks RUNNING, and return them in the order of the claims.

    A task is fresh that is QUEUED, never had its process die, and was not claimed since: there is nothing to decide
    then. None where the database cannot do so; `admit_claims` decides on the others.
    """
    if not can_batch(engine.dialect):
        return []
    values = {
        "ids": [lease.agent_id for lease in claims],
        "epochs": [lease.epoch for lease in claims],
        "message": started_message,
        "now": now,
    }
    rows = {row[0]: row for row in run_in_one_round_trip(engine, START, values, relaxed=True)}
    started = ((lease, rows[lease.agent_id]) for lease in claims if lease.agent_id in rows)
    return [
        Admitted(lease, name, context, attempt, CrashCounts())
        for lease, (_, name, context, attempt) in started
    ]


def can_complete_batch(engine: Engine, endings: Sequence[Ending]) -> bool:
    """True for endings that `complete_batch` can write."""
    alike = {(ending.status, ending.message) for ending in endings}
    return can_batch(engine.dialect) and len(alike) == 1 and endings[0].status is Status.COMPLETE


def complete_batch(
    engine: Engine, endings: Sequence[Ending], *, now: datetime, result_ttl: int
) -> list[Lease]:
    """Make tasks COMPLETE; returns the leases of those that were refused, as `record_changes` does."""
    values = {
        "ids": [ending.lease.agent_id for ending in endings],
        "epochs": [ending.lease.epoch for ending in endings],
        "results": [ending.result for ending in endings],
        "message": endings[0].message,
        "now": now,
        "expires": now + timedelta(seconds=result_ttl),
    }
    written = {row[0] for row in run_in_one_round_trip(engine, END, values, relaxed=False)}
    return [ending.lease for ending in endings if ending.lease.agent_id not in written]
