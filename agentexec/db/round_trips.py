"""Several statements in one round trip, where the database can."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ClauseElement, Dialect, Engine, exc
from sqlalchemy.engine import Connection

from agentexec.db.errors import translating_db_errors
from agentexec.db.libpq import Row, Statement, run_two_transactions
from agentexec.db.lock_limits import transaction_limits
from agentexec.db.own_connection import run_beside_pool

RELAXED = "set_config('synchronous_commit', 'off', true)"
"""Setting of a PostgreSQL transaction: its commit is confirmed before it is on disk."""

BY_KEY_ONLY = "set_config('enable_seqscan', 'off', true)"
"""Setting of a PostgreSQL transaction: rows are found by their keys. A plan that is made while a table is small would
read the whole table, and be cached."""

INDEX_ORDER_SETTINGS = ("enable_seqscan", "enable_bitmapscan", "enable_sort")
IN_INDEX_ORDER = ", ".join(f"set_config('{name}', 'off', true)" for name in INDEX_ORDER_SETTINGS)
"""Settings of a PostgreSQL transaction: rows come from an index, in its order, and reading stops with the last one that is
wanted. Without statistics of a table that has just been filled, a planner would collect and sort all rows that match."""


def can_batch(dialect: Dialect) -> bool:
    """Return True if several statements can go in one round trip: with psycopg 3 and a libpq that supports pipelines."""
    dbapi: Any = dialect.loaded_dbapi
    return dialect.driver == "psycopg" and not dialect.is_async and dbapi.Pipeline.is_supported()


@contextmanager
def batched(connection: Connection, *, commit: bool = False) -> Generator[None]:
    """Send the statements of the block in one round trip, where the database can.

    Use it for statements whose results, row counts included, nobody reads. Their errors may come later in the block, or
    at its end. `commit`: the transaction, opened by the caller with `writing`, ends with the block, and its commit is
    part of the round trip.
    """
    if not can_batch(connection.dialect):
        yield
        return
    with _pipeline(connection):
        yield
        if commit:
            connection.exec_driver_sql("COMMIT")  # the driver's own commit waits for an answer first


def run_in_one_round_trip(
    engine: Engine, statement: str, values: dict[str, Any], *, relaxed: bool, settings: str = BY_KEY_ONLY
) -> list[tuple[Any, ...]]:
    """Run a psycopg statement as a transaction in one round trip, and return its rows. `relaxed` as for `writing`."""
    calls = [RELAXED] * relaxed
    # The connection beside the pool has the usual settings, and limits too.
    own_calls = calls + [settings] * (settings != BY_KEY_ONLY)
    with translating_db_errors(engine):
        found = run_beside_pool(engine, [*_select(own_calls), (statement, values)])
        if found is None:
            calls += [settings, transaction_limits(engine.dialect)]
            found = run_two_transactions(engine, [*_select(calls), (statement, values)], None)
        return found[0]


def run_transactions(
    engine: Engine, statements: Sequence[Statement], then: Statement | None
) -> tuple[list[Row], bool]:
    """Do what `run_two_transactions` does, on the connection beside the pool if that is free. Raises UnavailableError."""
    with translating_db_errors(engine):
        found = run_beside_pool(engine, statements, then)
        return run_two_transactions(engine, statements, then) if found is None else found


def _select(calls: Sequence[str]) -> list[Statement]:
    """Return the statement that makes some calls, or none."""
    return [(f"SELECT {', '.join(calls)}", {})] if calls else []


def write_then_read(engine: Engine, write: ClauseElement, read: ClauseElement) -> list[tuple[Any, ...]]:
    """Commit one statement and then run a query, in one round trip; return the query's rows.

    The query sees what others have committed in between. Only where `can_batch`; raises UnavailableError.
    """
    literal: Any = {"dialect": engine.dialect, "compile_kwargs": {"literal_binds": True}}
    with translating_db_errors(engine), engine.begin() as connection:
        with _pipeline(connection) as raw:
            raw.execute(f"SELECT {transaction_limits(engine.dialect)}")
            raw.execute(str(write.compile(**literal)))
            raw.execute("COMMIT")
            cursor = raw.execute(str(read.compile(**literal)))
        return cursor.fetchall()


@contextmanager
def _pipeline(connection: Connection) -> Generator[Any]:
    dialect = connection.dialect
    dbapi: Any = dialect.loaded_dbapi
    raw: Any = connection.connection.driver_connection
    failure: Exception | None = None
    try:
        with raw.pipeline():
            try:
                yield raw
            except (exc.DBAPIError, dbapi.Error) as error:
                # Hidden from the pipeline, which would log that closing it failed with another error.
                failure = error
    except dbapi.Error as error:
        failure = failure or error
    if isinstance(failure, exc.DBAPIError):
        raise failure
    if failure is not None:
        raise exc.DBAPIError.instance(None, None, failure, dbapi.Error, dialect=dialect) from failure
