"""The journal of PostgreSQL: an append in one round trip."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from agentexec.db.round_trips import can_batch, run_in_one_round_trip
from agentexec.errors import LeaseLostError
from agentexec.journal.facts import STEPS, Fact, Usage
from agentexec.journal.store import ACTIVITY, JOURNAL, JournalStore
from agentexec.task import Lease, Status

_APPEND = f"""
WITH held AS (
    SELECT agent_id, crashes_in_row FROM {ACTIVITY.name}
    WHERE agent_id = %(agent_id)s AND epoch = %(epoch)s AND status = '{Status.RUNNING.name}' FOR UPDATE
), reset AS (
    UPDATE {ACTIVITY.name} a SET crashes_in_row = 0 FROM held
    WHERE a.agent_id = held.agent_id AND held.crashes_in_row > 0 AND %(step)s
)
INSERT INTO {JOURNAL.name} (agent_id, path, seq, kind, input_hash, value, epoch, created_at)
SELECT agent_id, %(path)s, %(seq)s, %(kind)s, %(input_hash)s, %(value)s, %(epoch)s, %(now)s FROM held
RETURNING seq
"""  # noqa: S608 - the names of our tables


class PostgresJournalStore(JournalStore):
    """Journal store of PostgreSQL. It restates the general append in SQL, for facts without usage."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._can_batch = can_batch(engine.dialect)

    def _append(self, lease: Lease, fact: Fact, usage: Usage | None, now: datetime, *, relaxed: bool) -> None:
        if usage is not None or not self._can_batch:
            super()._append(lease, fact, usage, now, relaxed=relaxed)
            return
        values = {
            "agent_id": lease.agent_id,
            "epoch": lease.epoch,
            "now": now,
            "step": fact.kind in STEPS,
            **fact._asdict(),
        }
        if not run_in_one_round_trip(self._engine, _APPEND, values, relaxed=relaxed):
            raise LeaseLostError(lease.agent_id)
