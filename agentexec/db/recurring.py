"""Statements that each process runs every few seconds: compiled once, and one round trip each on PostgreSQL."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, Engine, Insert, Select, Table, TextClause

from agentexec.db.round_trips import can_batch, run_in_one_round_trip
from agentexec.db.transactions import reading, writing

Values = Mapping[str, Any]
Statement = Select[Any] | TextClause | Insert


class Recurring:
    """A query, or an insert of rows that may be lost if the server crashes, with parameters of the same names each time."""

    def __init__(self, engine: Engine, statement: Statement) -> None:
        self._engine = engine
        self._statement = statement
        self._is_batched = engine.dialect.name == "postgresql" and can_batch(engine.dialect)
        self._compiled: _Compiled | None = None

    def read(self, values: Values) -> Sequence[Any]:
        """Return the rows, whose values are the driver's own on PostgreSQL. Raises UnavailableError."""
        if self._is_batched:
            return self._run(values)
        with reading(self._engine, by_key_only=True) as connection:
            return connection.execute(self._statement, values).all()

    def write(self, values: Values) -> None:
        """Insert a row. Raises UnavailableError."""
        if self._is_batched:
            self._run(values, relaxed=True)
            return
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(self._statement, values)

    def _run(self, values: Values, *, relaxed: bool = False) -> list[tuple[Any, ...]]:
        if self._compiled is None:
            self._compiled = _Compiled(self._statement, values, self._engine.dialect)
        bound = self._compiled.bind(values)
        return run_in_one_round_trip(self._engine, self._compiled.text, bound, relaxed=relaxed)


class _Compiled:
    """Statement of psycopg, and how its values are written."""

    def __init__(self, statement: Statement, names: Collection[str], dialect: Dialect) -> None:
        if isinstance(statement, Insert):
            statement = statement.inline()  # without RETURNING, for keys that nobody reads
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
        self.text = str(compiled)
        self._compiled, self._writers = compiled, compiled._bind_processors

    def bind(self, values: Values) -> dict[str, Any]:
        found = self._compiled.construct_params(values)
        return {
            name: write(value) if (write := self._writers.get(name)) else value
            for name, value in found.items()
        }


def upsert(table: Table, key: str, changed: Collection[str], dialect: Dialect) -> Insert:
    """Return the insert of a row, which changes some columns of the row that has its key already."""
    is_mysql = dialect.name in ("mysql", "mariadb")
    # Of the dialect in use, which is loaded anyway.
    types = importlib.import_module(f"sqlalchemy.dialects.{'mysql' if is_mysql else dialect.name}")
    made: Any = types.insert(table)
    if is_mysql:
        return made.on_duplicate_key_update({name: made.inserted[name] for name in changed})
    return made.on_conflict_do_update(
        index_elements=[key], set_={name: made.excluded[name] for name in changed}
    )
