"""A backlog of any length in record and queue: the first rows are inserted, and the database multiplies them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Uuid, bindparam, insert, text

from agentexec.activity.models import Activity
from agentexec.config import CONF
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME
from agentexec.state.sql_models import LEASED, QueueEntry
from agentexec.task import Entry, Status

LEASE_SECONDS = 3600.0
AGE_SECONDS = 3600
"""Age of the tasks: those of the last minute are looked at more often."""

AT_ONCE = 100_000
"""Rows of one statement."""

MICROSECONDS = 1_000_000


class _Dialect(NamedTuple):
    """Parts of a statement that makes rows of a template `t`, for each number `n` of a series."""

    series: str
    agent_id: str
    moment: str
    """A column's time, as many microseconds later as the number is higher than the template's."""


_DIALECTS = {
    "postgresql": _Dialect(
        "generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS s(n)",
        "CAST(lpad(to_hex(CAST(:ms AS bigint)), 12, '0') || lpad(to_hex(n), 20, '0') AS uuid)",
        "t.{column} + (n - :template_number) * INTERVAL '1 microsecond'",
    ),
    "sqlite": _Dialect(
        "(WITH RECURSIVE s(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM s WHERE n < :last) SELECT n FROM s)",
        "printf('%012x%020x', :ms, n)",
        # From the whole second at which the backlog starts: SQLite's times have milliseconds at most.
        "CASE WHEN t.{column} IS NULL THEN NULL ELSE strftime('%Y-%m-%d %H:%M:%S', :start, (n / 1000000) || ' seconds') "
        "|| printf('.%06d', n % 1000000) END",
    ),
    "mysql": _Dialect(
        "(SELECT seq AS n FROM seq_{first}_to_{last}) AS s",
        "LOWER(CONCAT(LPAD(HEX(:ms), 12, '0'), LPAD(HEX(n), 20, '0')))",
        "t.{column} + INTERVAL (n - :template_number) MICROSECOND",
    ),
}


class Backlog:
    """Queued and running tasks of this process's queue, whose numbers grow."""

    def __init__(self) -> None:
        self.queued = self.running = 0
        self._numbers = 0
        self._start = (utc_now() - timedelta(seconds=AGE_SECONDS)).replace(microsecond=0)
        self._ms = int(self._start.timestamp() * 1000)

    def grow(self, queued: int, running: int) -> None:
        """Add tasks until there are as many. There can be no fewer."""
        self._add(running - self.running, runs=True)
        self._add(queued - self.queued, runs=False)
        self.queued, self.running = queued, running
        RUNTIME.backend.mark_intact(CONF.queue_name)

    def moment(self, share: float) -> datetime:
        """Return the time of the task before which there is a share of all."""
        return self._start + timedelta(microseconds=int(self._numbers * share))

    def _add(self, number: int, *, runs: bool) -> None:
        if number <= 0:
            return
        first, self._numbers = self._numbers, self._numbers + number
        numbers = range(first, self._numbers)
        with RUNTIME.engine.begin() as connection:
            template = self._activity(first, runs=runs)
            connection.execute(insert(Activity), template)
            if RUNTIME.backend.transactional:
                connection.execute(insert(QueueEntry), self._entry(first, runs=runs))
            for part in chunks(numbers[1:], AT_ONCE):
                self._multiply(connection, first, part)
        if not RUNTIME.backend.transactional:
            for part in chunks(numbers, 1000):
                entries = [Entry(self._id(number), epoch=int(runs)) for number in part]
                if runs:
                    RUNTIME.backend.restore(CONF.queue_name, entries, LEASE_SECONDS)
                else:
                    RUNTIME.backend.push(CONF.queue_name, entries)

    def _multiply(self, connection: Connection, template: int, numbers: Sequence[int]) -> None:
        """Insert the rows of some numbers, which follow each other, after the template's."""
        sql = _DIALECTS[connection.dialect.name.replace("mariadb", "mysql")]
        bounds = {"first": numbers[0], "last": numbers[-1]}
        series = sql.series.format(**bounds) if "{" in sql.series else sql.series
        times = {name: sql.moment.format(column=name) for name in ("created_at", "updated_at", "started_at")}
        tables: list[tuple[Any, dict[str, str]]] = [(Activity.__table__, times)]
        if RUNTIME.backend.transactional:
            tables.append((QueueEntry.__table__, {"at": "t.at + n - :template_number"}))
        values = {**bounds, "ms": self._ms, "start": f"{self._start:%Y-%m-%d %H:%M:%S}"}
        values |= {"template": self._id(template), "template_number": template}
        quote = connection.dialect.identifier_preparer.quote
        for table, changed in tables:
            columns = {column.name: f"t.{quote(column.name)}" for column in table.c}
            columns |= {"agent_id": sql.agent_id, **changed}
            names = ", ".join(map(quote, columns))
            statement = text(
                f"INSERT INTO {table.name} ({names}) SELECT {', '.join(columns.values())} "
                f"FROM {series} JOIN {table.name} t ON t.agent_id = :template"
            )
            wanted = {name: value for name, value in values.items() if f":{name}" in str(statement)}
            connection.execute(statement.bindparams(bindparam("template", type_=Uuid())), wanted)

    def _id(self, number: int) -> UUID:
        return UUID(int=(self._ms << 80) | number)

    def _activity(self, number: int, *, runs: bool) -> dict[str, Any]:
        moment = self._start + timedelta(microseconds=number)
        return {
            **{"agent_id": self._id(number), "agent_type": "noop", "percentage": 0, "priority": 1},
            **{"status": Status.RUNNING if runs else Status.QUEUED, "message": "Waiting to start."},
            **{"created_at": moment, "updated_at": moment, "queue": CONF.queue_name},
            **{"started_at": moment if runs else None},
            **{"epoch": int(runs), "attempt": int(runs), "crashes": 0},
        }

    def _entry(self, number: int, *, runs: bool) -> dict[str, Any]:
        at = int(self._start.timestamp() * MICROSECONDS) + number
        if runs:
            at += int((AGE_SECONDS + LEASE_SECONDS) * MICROSECONDS)
        return {
            **{"agent_id": self._id(number), "queue": CONF.queue_name, "priority": 1, "grouped": 0},
            **{
                "lane": LEASED if runs else 1,
                "epoch": int(runs),
                "at": at,
                "worker": "others" if runs else None,
            },
        }
