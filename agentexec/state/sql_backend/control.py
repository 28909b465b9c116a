"""Leaderships, token buckets, and the note that an index is complete, on the SQL backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from agentexec.db.chunks import chunks
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.recurring import Recurring
from agentexec.db.round_trips import run_in_one_round_trip
from agentexec.db.transactions import writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand
from agentexec.state.backend import longest_leadership
from agentexec.state.sql_backend.buckets import Buckets
from agentexec.state.sql_backend.groups import INTACT, Groups
from agentexec.state.sql_backend.messages import SqlMessages
from agentexec.state.sql_backend.statements import ControlStatements
from agentexec.state.sql_models import Leader

_LEAD = f"""
INSERT INTO {Leader.__tablename__} AS leader (role, owner, until)
VALUES (%(role)s, %(owner)s, {{now}} + %(seconds)s::bigint)
ON CONFLICT (role) DO UPDATE SET owner = excluded.owner, until = excluded.until
WHERE leader.owner = excluded.owner OR leader.until < {{now}} OR leader.until > {{now}} + %(longest)s::bigint
RETURNING role
"""
"""A leadership in one statement, where that is one round trip: each host gives a sign of life every few seconds."""


class SqlControl(SqlMessages):
    """Part of the SQL backend that coordinates processes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._groups = Groups(self._dialect)
        self._control = ControlStatements(self._dialect)
        self._intact = Recurring(engine, self._control.count)
        self._buckets = Buckets(engine, self._dialect)
        self._lead = _LEAD.format(now=self._dialect.now)

    def is_intact(self, queue: str) -> bool:
        rows = self._intact.read({"name": INTACT + queue})
        return bool(rows and rows[0][0])

    def mark_intact(self, queue: str) -> None:
        values = {"name": INTACT + queue, "amount": 1}
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(self._groups.sql.drop_all_orphans, {"queue": queue})
        try:
            self._note_intact(queue, values)
        except IntegrityError:
            return  # another process noted it at the same moment

    @retry_on_deadlock
    def _note_intact(self, queue: str, values: dict[str, Any]) -> None:
        """Note that an index is complete, and let a task into each lock that nobody has: claims have given none away."""
        with writing(self._engine) as connection:
            self._groups.lock_all(
                connection
            )  # a claim that knows of no index leaves its tasks waiting until it commits
            if connection.execute(self._control.add, values).rowcount == 0:
                connection.execute(self._control.new_counter, values)
            parked = connection.execute(self._groups.sql.parked, {"queue": queue}).scalars().all()
            for chunk in chunks(parked):
                self._groups.go_on(connection, queue, chunk)

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        length, longest = (int(s * MICROS_PER_SECOND) for s in (seconds, longest_leadership(seconds)))
        if self._quick is not None:
            given = {"role": role, "owner": owner, "seconds": length, "longest": longest}
            return bool(run_in_one_round_trip(self._engine, self._lead, given, relaxed=True))
        values = self._params(role=role, owner=owner, seconds=length, longest=longest)
        with writing(self._engine, relaxed=True) as connection:
            if connection.execute(self._control.keep_leadership, values).rowcount > 0:
                return True
            return connection.execute(self._control.take_leadership, values).rowcount > 0

    def release_leadership(self, role: str, owner: str) -> None:
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(self._control.release_leadership, {"role": role, "owner": owner})

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        return self._buckets.take(demands, max_wait)

    def settle(self, demands: Sequence[Demand]) -> None:
        self._buckets.take(demands, None)
