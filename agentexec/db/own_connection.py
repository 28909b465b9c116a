"""A connection to PostgreSQL beside the pool, on which each statement is a transaction of its own.

Its session is set up once for what `writing` sets in each transaction, and nothing is taken from the pool and given back. So
a statement costs the process less than half of what the same one costs as a transaction of a pooled connection.
"""

from __future__ import annotations

import selectors
import threading
import time
from typing import Any

from sqlalchemy import Engine, exc

from agentexec.db.errors import translating_db_errors
from agentexec.db.libpq import forget_older_connections, pooled_connection
from agentexec.db.lock_limits import LOCK_SECONDS
from agentexec.db.pooler import pooling_of
from agentexec.db.round_trips import RELAXED, can_batch

LOOK_AFTER = 1.0
"""Seconds without use after which the next use looks first whether the server has closed the connection."""

CLOSE_SECONDS = 1.0
"""Longest wait of `close` for a statement that another thread is running, in seconds."""

# Nothing that `transaction_limits` sets besides: a process that is frozen leaves no transaction open here.
_SESSION = (
    f"SELECT set_config('enable_seqscan', 'off', false), set_config('lock_timeout', '{LOCK_SECONDS}s', false)"
)


class OwnConnection:
    """Connection that is opened with its first statement, and again after an error. Threads use it one at a time.

    There is none through a pooler that gives each transaction another session, nor with another driver than psycopg.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._can_be = can_batch(engine.dialect)
        self._connection: Any = None
        self._used = 0.0

    def run(
        self, statement: str, values: dict[str, Any], *, relaxed: bool = False
    ) -> list[tuple[Any, ...]] | None:
        """Run a psycopg statement that ends with RETURNING, as a transaction, and return its rows.

        None if another thread is using the connection or there can be none: then nothing was done. `relaxed` as for
        `writing`, which adds a column to the rows. Raises what `writing` raises.
        """
        if not self._can_be or not self._lock.acquire(blocking=False):
            return None
        try:
            with translating_db_errors(self._engine):
                connection = self._opened()
                if connection is None:
                    return None
                return self._run(
                    connection, f"{statement}, (SELECT {RELAXED})" if relaxed else statement, values
                )
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection. A later statement opens it again."""
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            self._forget()
            self._lock.release()

    def _run(self, connection: Any, statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        dialect: Any = self._engine.dialect
        try:
            rows: list[tuple[Any, ...]] = connection.execute(statement, values).fetchall()
        except dialect.loaded_dbapi.Error as error:
            lost = connection.closed
            if lost:
                forget_older_connections(self._engine, connection)
                self._forget()
            raise exc.DBAPIError.instance(
                None, None, error, dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=dialect
            ) from error
        self._used = time.monotonic()
        return rows

    def _opened(self) -> Any:
        """Return the connection, opened if need be; None if there can be none."""
        if time.monotonic() - self._used > LOOK_AFTER and self._has_farewell():
            self._forget()
        if self._connection is None:
            pooled = pooled_connection(self._engine)
            if not pooling_of(self._engine).keeps_session:
                self._can_be = False
                pooled.close()
                return None
            connection: Any = pooled.driver_connection
            pooled.detach()
            connection.autocommit = True
            self._run(connection, _SESSION, {})
            self._connection = connection
        return self._connection

    def _has_farewell(self) -> bool:
        """Return True if the server has sent something between two statements: that it closes the connection."""
        if self._connection is None:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection.fileno(), selectors.EVENT_READ)
            return bool(selector.select(0))

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
