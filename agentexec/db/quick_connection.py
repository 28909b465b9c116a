"""A connection to SQLite that runs statements which return again and again without SQLAlchemy's work for each call.

That work takes longer than what SQLite does for a short statement. What is bound and read stays the same: SQLAlchemy compiles the
statement and converts the values.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Delete, Dialect, Insert, Select, TextClause, TextualSelect, Update, exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData

PLANNED = (Insert, Update, Delete, Select, TextClause, TextualSelect)

Convert = Callable[[Any], Any]
Values = Mapping[str, Any]
Plans = WeakKeyDictionary[Any, dict[tuple[str, ...], "Plan | None"]]
"""Plans of statements, by the names of their values; None for a statement that is left to SQLAlchemy."""


class Written(NamedTuple):
    """Outcome of a statement without rows."""

    rowcount: int


class Plan:
    """A compiled statement: its text, and how its values are written and read."""

    def __init__(self, compiled: Any, names: Sequence[str], dialect: Dialect) -> None:
        self.text: str = compiled.string
        writers = {
            name: parameter.type.dialect_impl(dialect).bind_processor(dialect)
            for parameter, name in compiled.bind_names.items()
        }
        constants = {
            name: value if (write := writers[name]) is None else write(value)
            for name, value in compiled.construct_params(_check=False).items()
            if name not in names
        }
        self._constants = constants
        self._parts: list[tuple[str, Convert | None]] = [
            (name, None if name in constants else writers[name]) for name in compiled.positiontup or ()
        ]
        self._by_name = {
            entry.keyname: entry.type.dialect_impl(dialect).result_processor(dialect, None)
            for entry in compiled._result_columns or ()
        }
        self._rows: tuple[SimpleResultMetaData, list[tuple[int, Convert]]] | None = None

    def bind(self, values: Values) -> list[Any]:
        """Return the values in the order of the statement, as the driver takes them."""
        if self._constants:
            values = {**self._constants, **values}
        return [values[name] if write is None else write(values[name]) for name, write in self._parts]

    def bind_all(self, rows: Sequence[Values]) -> Iterable[Any]:
        """Return the values of each row, column by column: no call for each row."""
        columns: list[Iterable[Any]] = []
        for name, write in self._parts:
            constants = self._constants
            column = [constants[name]] * len(rows) if name in constants else [row[name] for row in rows]
            columns.append(column if write is None else _write_all(write, column))
        return zip(*columns, strict=True)

    def read(self, cursor: sqlite3.Cursor) -> Any:
        """Return the outcome of a statement that has run."""
        if cursor.description is None:
            return Written(cursor.rowcount)
        if self._rows is None:
            names = [column[0] for column in cursor.description]
            readers = [(place, read) for place, name in enumerate(names) if (read := self._by_name.get(name))]
            self._rows = SimpleResultMetaData(names), readers
        metadata, readers = self._rows
        rows = cursor.fetchall()
        if rows and readers:
            columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
            for place, read in readers:
                columns[place] = map(read, columns[place])
            rows = list(zip(*columns, strict=True))
        return IteratorResult(metadata, iter(rows))


def _write_all(write: Convert, values: Sequence[Any]) -> Iterable[Any]:
    """Return the stored forms of a column; that of a value which all rows share, such as the present moment, is made once."""
    if values and all(value is values[0] for value in values):
        return [write(values[0])] * len(values)
    return map(write, values)


class QuickConnection(Connection):
    """Connection that gives a statement to the driver from its second use on, if nobody listens to the engine's statements.

    Only `execute` does so, and rows are found by their names. A statement counts as the same one if it is the same object.
    """

    def execute(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        """Run a statement as `Connection.execute` does."""
        is_single = not isinstance(parameters, list | tuple)
        first: Values = (parameters or {}) if is_single else parameters[0] if parameters else {}
        plan = None
        if not execution_options and self.is_quick:
            plan = self._plan_of(statement, tuple(first))
        if plan is None:
            return super().execute(statement, parameters, execution_options=execution_options)
        raw: Any = self.connection.driver_connection
        try:
            if is_single:
                return plan.read(raw.execute(plan.text, plan.bind(first)))
            return plan.read(raw.executemany(plan.text, plan.bind_all(parameters)))
        except sqlite3.Error as error:
            raise self._translated(plan.text, error) from error

    @property
    def is_quick(self) -> bool:
        """True if nobody listens to the engine's statements, and SQLAlchemy would not refuse them.

        It does so in the block of a transaction that was rolled back.
        """
        is_over = self._trans_context_manager is not None and self._transaction is None
        return not (is_over or self._has_events or self.engine._has_events)

    def run(self, text: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement of the driver, whose values are in their stored form, and return its rows."""
        raw: Any = self.connection.driver_connection
        try:
            return raw.execute(text, values).fetchall()
        except sqlite3.Error as error:
            raise self._translated(text, error) from error

    def run_many(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement of the driver once for each row of values."""
        raw: Any = self.connection.driver_connection
        try:
            raw.executemany(text, rows)
        except sqlite3.Error as error:
            raise self._translated(text, error) from error

    def _translated(self, text: str, error: sqlite3.Error) -> Exception:
        return exc.DBAPIError.instance(
            text, None, error, sqlite3.Error, hide_parameters=True, dialect=self.dialect
        )

    def _plan_of(self, statement: Any, names: tuple[str, ...]) -> Plan | None:
        if not isinstance(statement, PLANNED) or statement._propagate_attrs:  # ORM's
            return None
        plans = _plans(self.dialect)
        known = plans.get(statement)
        if known is None:
            # Most statements that are built for one use never return.
            plans[statement] = {}
            return None
        if names not in known:
            known[names] = _plan(statement, names, self.dialect)
        return known[names]


@functools.cache
def _plans(dialect: Dialect) -> Plans:
    """Return the plans of an engine, by its dialect, for all of its connections."""
    return WeakKeyDictionary()


def _plan(statement: Any, names: Sequence[str], dialect: Dialect) -> Plan | None:
    """Return the plan of a statement; None if SQLAlchemy adds values to it, or completes its text at each call."""
    if isinstance(statement, Insert | Update | Delete) and statement._returning:
        return None
    if isinstance(statement, Insert):
        statement = statement.inline()  # without RETURNING, for keys that nobody reads
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
    completed = compiled.post_compile_params or compiled.literal_execute_params
    added = getattr(compiled, "insert_prefetch", ()) or getattr(compiled, "update_prefetch", ())
    keys = [entry.keyname for entry in compiled._result_columns or ()]
    if completed or added or len({*keys}) < len(keys):
        return None
    return Plan(compiled, names, dialect)


def quick_connection(engine: Engine) -> Connection:
    """Return a connection of an engine, a quick one where the driver is Python's own for SQLite."""
    return QuickConnection(engine) if engine.dialect.driver == "pysqlite" else engine.connect()
