"""The journal of PostgreSQL: an append in one round trip, of one fact or of many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from agentexec.db.round_trips import can_batch, run_in_one_round_trip
from agentexec.errors import LeaseLostError
from agentexec.journal.facts import COUNTS, STEPS, Fact, Usage
from agentexec.journal.store import ACTIVITY, JOURNAL, Append, JournalStore
from agentexec.payloads.sealing import seal
from agentexec.task import Lease, Status

_COUNTED = ", ".join(
    f"'{name}', coalesce((a.usage -> m.model ->> '{name}')::bigint, 0) + m.{name}" for name in COUNTS
)
_ADDED = ", ".join(
    f"{name} = CASE WHEN m.model IS NULL THEN a.{name} ELSE coalesce(a.{name}, 0) + m.{name} END"
    for name in COUNTS
)
_APPEND_ONE = f"""
WITH held AS (
    SELECT agent_id, crashes_in_row FROM {ACTIVITY.name}
    WHERE agent_id = %(agent_id)s AND epoch = %(epoch)s AND status = '{Status.RUNNING.name}' FOR UPDATE{{skip}}
), reset AS (
    UPDATE {ACTIVITY.name} a SET crashes_in_row = 0 FROM held
    WHERE a.agent_id = held.agent_id AND held.crashes_in_row > 0 AND %(step)s
)
INSERT INTO {JOURNAL.name} (agent_id, path, seq, kind, input_hash, value, epoch, created_at)
SELECT agent_id, %(path)s, %(seq)s, %(kind)s, %(input_hash)s, %(value)s, %(epoch)s, %(now)s FROM held
RETURNING agent_id, path, seq
"""  # noqa: S608 - the names of our tables

_IDS = "ANY(%(ids)s::uuid[])"
# The condition on `ids` stands wherever the activities are read: joined only, they could be read as a whole.
_APPEND = f"""
WITH given AS (
    SELECT * FROM json_to_recordset(%(facts)s::json) AS g (
        agent_id uuid, epoch int, path text, seq int, kind text, input_hash text, value text, created_at timestamptz
    )
), held AS MATERIALIZED (
    SELECT agent_id, epoch FROM {ACTIVITY.name}
    WHERE agent_id = {_IDS} AND status = '{Status.RUNNING.name}' ORDER BY agent_id FOR UPDATE{{skip}}
), changed AS (
    UPDATE {ACTIVITY.name} a SET
        usage = CASE WHEN m.model IS NULL THEN a.usage ELSE
            CASE WHEN jsonb_typeof(a.usage) = 'object' THEN a.usage ELSE '{{{{}}}}'::jsonb END
            || jsonb_build_object(m.model, jsonb_build_object({_COUNTED})) END,
        {_ADDED},
        crashes_in_row = CASE WHEN m.step THEN 0 ELSE a.crashes_in_row END
    FROM json_to_recordset(%(changes)s::json) AS m (
        agent_id uuid, epoch int, step bool, model text, {", ".join(f"{name} bigint" for name in COUNTS)}
    )
    JOIN held ON held.agent_id = m.agent_id AND held.epoch = m.epoch
    WHERE a.agent_id = {_IDS} AND a.agent_id = held.agent_id
        AND (m.model IS NOT NULL OR m.step AND a.crashes_in_row > 0)
)
INSERT INTO {JOURNAL.name} (agent_id, path, seq, kind, input_hash, value, epoch, created_at)
SELECT g.agent_id, g.path, g.seq, g.kind, g.input_hash, g.value, g.epoch, g.created_at
FROM given g JOIN held ON held.agent_id = g.agent_id AND held.epoch = g.epoch
RETURNING agent_id, path, seq
"""  # noqa: S608 - the names of our tables
_SKIP = " SKIP LOCKED"


class PostgresJournalStore(JournalStore):
    """Journal store of PostgreSQL. It restates the general appends in SQL."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._can_batch = can_batch(engine.dialect)

    def _append(self, lease: Lease, fact: Fact, usage: Usage | None, now: datetime, *, relaxed: bool) -> None:
        if not self._can_batch or (usage is not None and usage.charge is not None):
            super()._append(lease, fact, usage, now, relaxed=relaxed)
            return
        if not self._run([Append(lease, fact, usage, now)], relaxed=relaxed, skip=""):
            raise LeaseLostError(lease.agent_id)

    def _append_together(self, appends: Sequence[Append], *, relaxed: bool) -> frozenset[int]:
        if not self._can_batch:
            return super()._append_together(appends, relaxed=relaxed)
        recorded = {row[:3] for row in self._run(appends, relaxed=relaxed, skip=_SKIP)}
        return frozenset(
            place
            for place, append in enumerate(appends)
            if (append.lease.agent_id, append.fact.path, append.fact.seq) in recorded
        )

    def _run(self, appends: Sequence[Append], *, relaxed: bool, skip: str) -> list[tuple[Any, ...]]:
        if len(appends) == 1 and appends[0].usage is None:
            # The most frequent statement; the general one costs the server twice as much.
            statement, values = _APPEND_ONE.format(skip=skip), _values_of_one(appends[0])
        else:
            statement, values = _APPEND.format(skip=skip), _values(appends)
        return run_in_one_round_trip(self._engine, statement, values, relaxed=relaxed)


def _values_of_one(append: Append) -> dict[str, Any]:
    lease, fact, _, now = append
    place = {"agent_id": lease.agent_id, "epoch": lease.epoch, "now": now}
    return {**place, "step": fact.kind in STEPS, **fact._asdict(), "value": seal(fact.value)}


def _values(appends: Sequence[Append]) -> dict[str, Any]:
    """Return the values of the statement. As JSON they cost a fraction of what the driver takes for lists."""
    facts: list[dict[str, Any]] = []
    changes: dict[Lease, dict[str, Any]] = {}
    for lease, fact, usage, now in appends:
        agent_id = str(lease.agent_id)
        place = {"agent_id": agent_id, "epoch": lease.epoch}
        facts.append({**place, **fact._asdict(), "value": seal(fact.value), "created_at": now.isoformat()})
        change = changes.setdefault(lease, {**place, "step": False})
        change["step"] = change["step"] or fact.kind in STEPS
        if usage is not None:
            change |= {"model": usage.model, **usage.counts}
    ids = {str(lease.agent_id) for lease in changes}
    return {
        "ids": f"{{{','.join(ids)}}}",
        "facts": json.dumps(facts),
        "changes": json.dumps(list(changes.values())),
    }
