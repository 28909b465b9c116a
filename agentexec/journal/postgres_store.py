"""The journal of PostgreSQL: an append in one round trip, of one fact or of many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from agentexec.db.round_trips import can_batch, run_in_one_round_trip
from agentexec.errors import LeaseLostError
from agentexec.journal.facts import COUNTS, STEPS, Fact, Usage
from agentexec.journal.store import ACTIVITY, JOURNAL, Append, JournalStore
from agentexec.task import Lease, Status

_COUNTED = ", ".join(
    f"'{name}', coalesce((a.usage -> m.model ->> '{name}')::bigint, 0) + m.{name}" for name in COUNTS
)
_ADDED = ", ".join(
    f"{name} = CASE WHEN m.model IS NULL THEN a.{name} ELSE coalesce(a.{name}, 0) + m.{name} END"
    for name in COUNTS
)
_APPEND = f"""
WITH given AS (
    SELECT * FROM unnest(
        %(agent_id)s::uuid[], %(epoch)s::int[], %(path)s::text[], %(seq)s::int[], %(kind)s::text[],
        %(input_hash)s::text[], %(value)s::text[], %(created_at)s::timestamptz[]
    ) AS g (agent_id, epoch, path, seq, kind, input_hash, value, created_at)
), held AS MATERIALIZED (
    SELECT agent_id, epoch FROM {ACTIVITY.name}
    WHERE agent_id = ANY(%(agent_id)s::uuid[]) AND status = '{Status.RUNNING.name}' ORDER BY agent_id FOR UPDATE{{skip}}
), changed AS (
    UPDATE {ACTIVITY.name} a SET
        usage = CASE WHEN m.model IS NULL THEN a.usage ELSE
            CASE WHEN jsonb_typeof(a.usage) = 'object' THEN a.usage ELSE '{{{{}}}}'::jsonb END
            || jsonb_build_object(m.model, jsonb_build_object({_COUNTED})) END,
        {_ADDED},
        crashes_in_row = CASE WHEN m.step THEN 0 ELSE a.crashes_in_row END
    FROM unnest(
        %(changed)s::uuid[], %(changed_epoch)s::int[], %(step)s::bool[], %(model)s::text[],
        {", ".join(f"%({name})s::bigint[]" for name in COUNTS)}
    ) AS m (agent_id, epoch, step, model, {", ".join(COUNTS)})
    JOIN held ON held.agent_id = m.agent_id AND held.epoch = m.epoch
    WHERE a.agent_id = held.agent_id AND (m.model IS NOT NULL OR m.step AND a.crashes_in_row > 0)
)
INSERT INTO {JOURNAL.name} (agent_id, path, seq, kind, input_hash, value, epoch, created_at)
SELECT g.agent_id, g.path, g.seq, g.kind, g.input_hash, g.value, g.epoch, g.created_at
FROM given g JOIN held ON held.agent_id = g.agent_id AND held.epoch = g.epoch
RETURNING agent_id, path, seq
"""  # noqa: S608 - the names of our tables
_APPEND_ONE = _APPEND.format(skip="")
_APPEND_FREE = _APPEND.format(skip=" SKIP LOCKED")


class PostgresJournalStore(JournalStore):
    """Journal store of PostgreSQL. It restates the general appends in SQL."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._can_batch = can_batch(engine.dialect)

    def _append(self, lease: Lease, fact: Fact, usage: Usage | None, now: datetime, *, relaxed: bool) -> None:
        if not self._can_batch or (usage is not None and usage.charge is not None):
            super()._append(lease, fact, usage, now, relaxed=relaxed)
            return
        values = _values([Append(lease, fact, usage, now)])
        if not run_in_one_round_trip(self._engine, _APPEND_ONE, values, relaxed=relaxed):
            raise LeaseLostError(lease.agent_id)

    def _append_together(self, appends: Sequence[Append], *, relaxed: bool) -> frozenset[int]:
        if not self._can_batch:
            return super()._append_together(appends, relaxed=relaxed)
        rows = run_in_one_round_trip(self._engine, _APPEND_FREE, _values(appends), relaxed=relaxed)
        recorded = set(rows)
        return frozenset(
            place
            for place, append in enumerate(appends)
            if (append.lease.agent_id, append.fact.path, append.fact.seq) in recorded
        )


def _values(appends: Sequence[Append]) -> dict[str, list[Any]]:
    """Return the values of the statement: lists of the facts' columns, and of their tasks' changes."""
    values: dict[str, list[Any]] = {
        name: [getattr(append.fact, name) for append in appends] for name in Fact._fields
    }
    values["agent_id"] = [append.lease.agent_id for append in appends]
    values["epoch"] = [append.lease.epoch for append in appends]
    values["created_at"] = [append.now for append in appends]
    return {**values, **_changes(appends)}


def _changes(appends: Sequence[Append]) -> dict[str, list[Any]]:
    """Return for each task whether it has got further, and what it has spent."""
    steps: dict[Lease, bool] = {}
    spent: dict[Lease, Usage] = {}
    for append in appends:
        steps[append.lease] = steps.get(append.lease, False) or append.fact.kind in STEPS
        if append.usage is not None:
            spent[append.lease] = append.usage
    return {
        "changed": [lease.agent_id for lease in steps],
        "changed_epoch": [lease.epoch for lease in steps],
        "step": list(steps.values()),
        **{name: [getattr(spent.get(lease), name, None) for lease in steps] for name in ("model", *COUNTS)},
    }
