"""Leaderships, token buckets, and the note that an index is complete, on the SQL backend."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from agentexec.db.transactions import reading, writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand
from agentexec.state.backend import longest_leadership
from agentexec.state.sql_backend.buckets import Buckets
from agentexec.state.sql_backend.groups import Groups
from agentexec.state.sql_backend.messages import SqlMessages
from agentexec.state.sql_backend.statements import ControlStatements

INTACT = "intact:"
"""Start of the name of the counter that says that a queue's index is complete."""


class SqlControl(SqlMessages):
    """Part of the SQL backend that coordinates processes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._groups = Groups(self._dialect)
        self._control = ControlStatements(self._dialect)
        self._buckets = Buckets(engine, self._dialect)

    def is_intact(self, queue: str) -> bool:
        with reading(self._engine) as connection:
            return bool(connection.execute(self._control.count, {"name": INTACT + queue}).scalar())

    def mark_intact(self, queue: str) -> None:
        values = {"name": INTACT + queue, "amount": 1}
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(self._groups.sql.drop_all_orphans, {"queue": queue})
        try:
            with writing(self._engine) as connection:
                if connection.execute(self._control.add, values).rowcount == 0:
                    connection.execute(self._control.new_counter, values)
        except IntegrityError:
            return  # another process noted it at the same moment

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        length, longest = (int(s * MICROS_PER_SECOND) for s in (seconds, longest_leadership(seconds)))
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
