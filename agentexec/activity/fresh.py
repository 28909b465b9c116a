"""The start of fresh tasks on PostgreSQL in one round trip: what `transitions.admit_claims` takes three for.

A fresh task is QUEUED, its process never died, and nobody has claimed it since: there is nothing to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine

from agentexec.activity.statements import ACTIVITY, LOG
from agentexec.activity.transitions import Admitted
from agentexec.db import at_once, can_batch
from agentexec.task import Lease, Status

START = f"""
WITH claimed AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(epochs)s::integer[]) AS claim (agent_id, epoch)
), locked AS (
    SELECT a.agent_id, claimed.epoch FROM {ACTIVITY.name} a JOIN claimed USING (agent_id)
    WHERE a.status = '{Status.QUEUED.name}' AND a.epoch < claimed.epoch AND a.crashes = 0
    ORDER BY a.agent_id FOR UPDATE OF a
), started AS (
    UPDATE {ACTIVITY.name} a
    SET status = '{Status.RUNNING.name}', epoch = locked.epoch, attempt = a.attempt + 1, message = %(message)s,
        started_at = coalesce(a.started_at, %(now)s), updated_at = %(now)s, error = NULL
    FROM locked WHERE a.agent_id = locked.agent_id
    RETURNING a.agent_id, a.agent_type, a.context, a.attempt, a.percentage
), line AS (
    INSERT INTO {LOG.name} (activity_id, created_at, status, message, percentage)
    SELECT agent_id, %(now)s, '{Status.RUNNING.name}', %(message)s, percentage FROM started
)
SELECT agent_id, agent_type, context, attempt FROM started
"""  # noqa: S608 - the names of our tables


def start_fresh(
    engine: Engine, claims: Sequence[Lease], *, now: datetime, started_message: str
) -> list[Admitted]:
    """Make the fresh ones of claimed tasks RUNNING, and return them in the order of the claims.

    None where the database cannot do so; `admit_claims` decides on the others.
    """
    if not can_batch(engine.dialect):
        return []
    values = {
        "ids": [lease.agent_id for lease in claims],
        "epochs": [lease.epoch for lease in claims],
        "message": started_message,
        "now": now,
    }
    rows = {row[0]: row for row in at_once(engine, START, values)}
    started = ((lease, rows[lease.agent_id]) for lease in claims if lease.agent_id in rows)
    return [Admitted(lease, name, context, attempt, 0) for lease, (_, name, context, attempt) in started]
