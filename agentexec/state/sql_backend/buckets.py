"""Token buckets in the SQL state backend's counters: a bucket is the moment at which it will be full again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, Engine, bindparam, text

from agentexec.db.transactions import writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand, spend
from agentexec.state.sql_models import Counter

PREFIX = "bucket:"
"""Of the counters that are buckets."""


class Buckets:
    """Takes from buckets in one transaction, by the database's clock.

    `now` is the SQL for the moment in microseconds, `:now` where the database has no clock of its own.
    """

    def __init__(self, engine: Engine, now: str) -> None:
        self._engine = engine
        self._own_clock = now == ":now"
        table, dialect = Counter.__tablename__, engine.dialect.name
        lock = "" if dialect == "sqlite" else " FOR UPDATE"
        insert, ignore = ("INSERT", " ON CONFLICT DO NOTHING")
        if dialect in ("mysql", "mariadb"):
            insert, ignore = "INSERT IGNORE", ""
        # In the order of the key, so that two calls that want the same buckets never wait for each other.
        self._select = text(
            f"SELECT name, value, {now} AS now_us FROM {table} WHERE name IN :names ORDER BY name{lock}"
        ).bindparams(bindparam("names", expanding=True))
        self._make = text(f"{insert} INTO {table} (name, value) VALUES (:name, 0){ignore}")
        self._keep = text(f"UPDATE {table} SET value = :value WHERE name = :name")

    def take(self, demands: Sequence[Demand], max_wait: float | None) -> float:
        """Take amounts, all or none; returns the wait in seconds. `max_wait` None: in any case."""
        if not demands:
            return 0.0
        wait = self._take(demands, max_wait)
        if wait is None:
            with writing(self._engine, relaxed=True) as connection:
                for demand in sorted(demands):
                    connection.execute(self._make, {"name": PREFIX + demand.name})
            wait = self._take(demands, max_wait)
        return 0.0 if wait is None else wait / MICROS_PER_SECOND

    def _take(self, demands: Sequence[Demand], max_wait: float | None) -> int | None:
        """The wait in microseconds; None if a bucket is not there yet."""
        with writing(self._engine, relaxed=True) as connection:
            found = self._read(connection, [PREFIX + demand.name for demand in demands])
            if len(found) < len(demands):
                return None
            spent = [spend(*found[PREFIX + demand.name], demand) for demand in demands]
            wait = max(one for one, _ in spent)
            if max_wait is None or wait <= max_wait * MICROS_PER_SECOND:
                rows = [
                    {"name": PREFIX + demand.name, "value": full_at}
                    for demand, (_, full_at) in zip(demands, spent, strict=True)
                ]
                connection.execute(self._keep, sorted(rows, key=lambda row: str(row["name"])))
            return wait

    def _read(self, connection: Connection, names: list[str]) -> dict[str, tuple[int, int]]:
        clock = {"now": time.time_ns() // 1000} if self._own_clock else {}
        rows = connection.execute(self._select, {"names": names, **clock})
        return {row.name: (row.value, row.now_us) for row in rows}
