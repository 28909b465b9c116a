"""Token buckets in the SQL backend's counters: a bucket is the time at which it will be full again."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine

from agentexec.db.transactions import writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand, spend
from agentexec.state.sql_backend.dialects import SqlDialect
from agentexec.state.sql_backend.statements import BucketStatements

PREFIX = "bucket:"
"""Start of the names of the counters that are buckets."""


class Buckets:
    """Takes from buckets in one transaction, by the database's clock."""

    def __init__(self, engine: Engine, dialect: SqlDialect) -> None:
        self._engine = engine
        self._params = dialect.params
        self._sql = BucketStatements(dialect)

    def take(self, demands: Sequence[Demand], max_wait: float | None) -> float:
        """Take amounts, all or none, and return the wait in seconds. `max_wait` None takes them after any wait."""
        if not demands:
            return 0.0
        wait = self._take(demands, max_wait)
        if wait is None:
            with writing(self._engine, relaxed=True) as connection:
                for demand in sorted(demands):
                    connection.execute(self._sql.create, {"name": PREFIX + demand.name})
            wait = self._take(demands, max_wait)
        return 0.0 if wait is None else wait / MICROS_PER_SECOND

    def _take(self, demands: Sequence[Demand], max_wait: float | None) -> int | None:
        """Return the wait in microseconds, or None if a bucket does not exist yet."""
        with writing(self._engine, relaxed=True) as connection:
            found = self._read(connection, [PREFIX + demand.name for demand in demands])
            if len(found) < len(demands):
                return None
            spent = [spend(*found[PREFIX + demand.name], demand) for demand in demands]
            wait = max(micros for micros, _ in spent)
            if max_wait is None or wait <= max_wait * MICROS_PER_SECOND:
                rows = [
                    {"name": PREFIX + demand.name, "value": full_at}
                    for demand, (_, full_at) in zip(demands, spent, strict=True)
                ]
                connection.execute(self._sql.update, sorted(rows, key=lambda row: str(row["name"])))
            return wait

    def _read(self, connection: Connection, names: list[str]) -> dict[str, tuple[int, int]]:
        rows = connection.execute(self._sql.lock, self._params(names=names))
        return {row.name: (row.value, row.now_us) for row in rows}
