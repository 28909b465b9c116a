"""Claims and pushes in one statement, on PostgreSQL: tasks without fairness keys, locks and limits.

The statement restates in SQL what `claims.py` does for such tasks. It leaves a queue alone on which others are ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine

from agentexec.db.round_trips import IN_INDEX_ORDER, can_batch, run_in_one_round_trip
from agentexec.db.row_source import RowSource, row_source
from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.state.sql_backend.dialects import dialect_of
from agentexec.state.sql_backend.fair_lanes import NextTasks
from agentexec.state.sql_models import LEASED, RANKED, UNRANKED, QueueEntry
from agentexec.task import Lease, Priority

HIGH, LOW = map(int, (Priority.HIGH, Priority.LOW))


_PUSH = f"""
INSERT INTO {QueueEntry.__tablename__} (agent_id, queue, priority, lane, at, epoch, flow, step, grouped)
SELECT agent_id, %(push_queue)s, priority, lane, {{now}} + shift, epoch, flow, step, 0 FROM ({{rows}}) AS entry
ON CONFLICT DO NOTHING
"""

_PUSHED = (
    ("agent_id", "uuid"),
    ("priority", "smallint"),
    ("lane", "smallint"),
    ("shift", "bigint"),
    ("epoch", "integer"),
    ("flow", "bigint"),
    ("step", "bigint"),
)
"""Columns of pushed tasks. `shift`: microseconds from now to the time from which the task may start."""


class PlainClaim(NamedTuple):
    """Result of a claim: the leases, None if other tasks are ready too, and the first values of the lanes.

    Those are from before the claim for None, from after it for leases.
    """

    leases: list[Lease] | None
    next: NextTasks


class PostgresClaims:
    """Claims and pushes in one statement, on an engine of PostgreSQL whose driver can pipeline."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._statement = _claim_statement(dialect_of(engine).now, dialect_of(engine).start)
        self._now = dialect_of(engine).now

    def push(self, queue: str, rows: Sequence[Mapping[str, Any]]) -> RowSource:
        """Return the statement that pushes rows to a queue, to be a part of another one, and its values."""
        source = row_source("push", rows, _PUSHED)
        values = {"push_queue": queue, **source.values}
        return RowSource(_PUSH.format(now=self._now, rows=source.sql), values)

    def claim(
        self, queue: str, worker: str, *, limit: int, low_quota: int, lease_seconds: float
    ) -> PlainClaim:
        """Lease up to `limit` tasks that are ready, at least `low_quota` of them of the priority LOW if there are any."""
        values = {
            "queue": queue,
            "worker": worker,
            "limit": limit,
            "low_quota": min(low_quota, limit),
            "lease": int(lease_seconds * MICROS_PER_SECOND),
        }
        [(now, ids, epochs, grouped, *firsts)] = run_in_one_round_trip(
            self._engine, self._statement, values, relaxed=True, settings=IN_INDEX_ORDER
        )
        first = NextTasks((firsts[0], firsts[1]), (firsts[2], firsts[3]), (firsts[4], firsts[5]), now)
        if grouped or any(map(first.is_fair, Priority)):
            return PlainClaim(None, first)
        leases = [Lease(agent_id, epoch + 1) for agent_id, epoch in zip(ids or (), epochs or (), strict=True)]
        return PlainClaim(leases, first._replace(plain=(firsts[6], firsts[7])))


def plain_claims(engine: Engine) -> PostgresClaims | None:
    """Return the claims of an engine, None where the database or its driver needs several round trips."""
    if engine.dialect.name == "postgresql" and can_batch(engine.dialect):
        return PostgresClaims(engine)
    return None


def _claim_statement(now: str, start: str) -> str:
    queue = QueueEntry.__tablename__

    def first(lane: int, offset: str = "") -> str:
        return (
            f"(SELECT at FROM {queue} WHERE queue = %(queue)s AND lane = {lane} ORDER BY at {offset} LIMIT 1)"
        )

    def ready(lane: int, most: str) -> str:
        return (
            f"SELECT agent_id, epoch, grouped FROM {queue} WHERE queue = %(queue)s AND lane = {lane} AND at <= {start} "
            f"AND (SELECT NOT fair FROM heads) ORDER BY at LIMIT {most} FOR UPDATE SKIP LOCKED"
        )

    fair = " OR ".join(
        f"{first(RANKED + lane)} IS NOT NULL OR {first(UNRANKED + lane)} <= {start}" for lane in (HIGH, LOW)
    )
    # The tasks of LOW that are ready, up to its share: if others claim them meanwhile, this claim is smaller.
    low_share = (
        f"SELECT count(*) FROM (SELECT FROM {queue} WHERE queue = %(queue)s AND lane = {LOW} AND at <= {start} "
        "ORDER BY at LIMIT %(low_quota)s) AS low"
    )
    return f"""
WITH heads AS MATERIALIZED (
    SELECT coalesce({fair}, false) AS fair
), high AS MATERIALIZED (
    {ready(HIGH, f"%(limit)s - ({low_share})")}
), low AS MATERIALIZED (
    {ready(LOW, "%(limit)s - (SELECT count(*) FROM high)")}
), found AS MATERIALIZED (
    SELECT * FROM high UNION ALL SELECT * FROM low
), leased AS (
    UPDATE {queue} SET lane = {LEASED}, at = {now} + %(lease)s, epoch = epoch + 1, worker = %(worker)s
    WHERE agent_id = ANY(ARRAY(SELECT agent_id FROM found)) AND NOT EXISTS (SELECT FROM found WHERE grouped <> 0)
)
SELECT {now}, array_agg(agent_id), array_agg(epoch), coalesce(bool_or(grouped <> 0), false),
    {first(HIGH)}, {first(LOW)}, {first(RANKED + HIGH)}, {first(RANKED + LOW)}, {first(UNRANKED + HIGH)},
    {first(UNRANKED + LOW)},
    {first(HIGH, "OFFSET (SELECT count(*) FROM high)")}, {first(LOW, "OFFSET (SELECT count(*) FROM low)")}
FROM found
"""
