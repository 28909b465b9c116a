"""The connection to PostgreSQL of a process beside its pool: what runs on it is a transaction of one round trip.

Its session is set up once for what `writing` sets in each transaction, and nothing is taken from the pool and given back. So
a statement costs the process less than half of what the same one costs as a transaction of a pooled connection.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, event, exc

from agentexec.db.clock import compare_if_due
from agentexec.db.libpq import (
    Prepared,
    Row,
    Statement,
    exchange,
    forget_older_connections,
    has_news,
    is_between_statements,
    pooled_connection,
)
from agentexec.db.lock_limits import LOCK_SECONDS
from agentexec.db.pooler import pooling_of

OPTION = "agentexec_own_connection"
"""Execution option of an engine that holds its `OwnConnection`."""

LOOK_AFTER = 1.0
"""Seconds without use after which the next use looks first whether the server has closed the connection."""

PREFIX = b"agentexec_own_"
"""Start of the names of prepared statements: the pool's connection that becomes this one may have prepared others."""

CLOSE_SECONDS = 1.0
"""Longest wait of `close` for a statement that another thread is running, in seconds."""

# Nothing that `transaction_limits` sets besides: a process that is frozen leaves no transaction open here.
_SESSION = (
    f"SELECT set_config('enable_seqscan', 'off', false), set_config('lock_timeout', '{LOCK_SECONDS}s', false)"
)


class OwnConnection:
    """Connection that is opened with its first statement, and again after an outage. Threads use it one at a time.

    There is none through a pooler that gives each transaction another session. Only for an engine that `can_batch`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._can_be = True
        self._forget_all()

    def _forget_all(self) -> None:
        """Start again, in a process that has inherited this object: neither lock nor connection are its own."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._inherited = getattr(self, "_connection", None)  # kept: the other process goes on using it
        self._connection: Any = None
        self._prepared = Prepared(PREFIX)
        self._used = 0.0

    def run(
        self, statements: Sequence[Statement], then: Statement | None = None
    ) -> tuple[list[Row], bool] | None:
        """Run statements as a transaction, and another one after it, as `libpq.run_two_transactions` does.

        None if another thread is using the connection or there can be none: then nothing was done. Raises DBAPIError.
        """
        if not self._can_be:
            return None
        if self._process != os.getpid():
            self._forget_all()
        if not self._lock.acquire(blocking=False):
            return None
        try:
            connection = self._opened()
            if connection is None:
                return None
            compare_if_due(self._engine, connection)
            return self._run(connection, statements, then)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection. A later statement opens it again."""
        if self._process != os.getpid():
            self._forget_all()
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            self._forget()
            self._lock.release()

    def _run(
        self, connection: Any, statements: Sequence[Statement], then: Statement | None
    ) -> tuple[list[Row], bool]:
        dialect: Any = self._engine.dialect
        dbapi = dialect.loaded_dbapi
        known = len(self._prepared.names)
        try:
            found = exchange(dbapi, connection, self._prepared, statements, then)
        except dbapi.Error as error:
            lost = dialect.is_disconnect(error, connection, None)
            if lost:
                forget_older_connections(self._engine, connection)
            if not (len(self._prepared.names) == known and _is_harmless(error, dbapi, connection)):
                self._forget()
            raise exc.DBAPIError.instance(
                None, None, error, dbapi.Error, connection_invalidated=lost, dialect=dialect
            ) from error
        except BaseException:
            self._forget()
            raise
        if then is not None and not found[1]:
            self._forget()
        self._used = time.monotonic()
        return found

    def _opened(self) -> Any:
        """Return the connection, opened if need be; None if there can be none."""
        connection = self._connection
        if connection is not None and time.monotonic() - self._used > LOOK_AFTER and has_news(connection):
            self._forget()
        if self._connection is None:
            pooled = pooled_connection(self._engine)
            if not pooling_of(self._engine).keeps_session:
                self._can_be = False
                pooled.close()
                return None
            connection = pooled.driver_connection
            pooled.detach()
            connection.autocommit = True
            self._connection = connection
            self._run(connection, [(_SESSION, {})], None)
        return self._connection

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        self._prepared = Prepared(PREFIX)
        if connection is not None:
            connection.close()


def _is_harmless(error: Exception, dbapi: Any, connection: Any) -> bool:
    """Return True if a statement can go on to be used that was refused for its values or for somebody's lock."""
    refusals = (dbapi.IntegrityError, dbapi.errors.LockNotAvailable)
    return isinstance(error, refusals) and is_between_statements(dbapi, connection)


def add_own_connection(engine: Engine) -> None:
    """Let an engine that `can_batch` have a connection beside its pool, which is closed when the engine is disposed of.

    A second call has no effect.
    """
    if own_connection(engine) is not None:
        return
    own = OwnConnection(engine)
    engine.update_execution_options(**{OPTION: own})
    event.listen(engine, "engine_disposed", lambda _: own.close())


def own_connection(engine: Engine) -> OwnConnection | None:
    """Return the connection of an engine beside its pool, if it has one."""
    found: OwnConnection | None = engine.get_execution_options().get(OPTION)
    return found


def run_beside_pool(
    engine: Engine, statements: Sequence[Statement], then: Statement | None = None
) -> tuple[list[Row], bool] | None:
    """Run statements on the connection of an engine beside its pool; None if it has none, or it is in use."""
    own = own_connection(engine)
    return None if own is None else own.run(statements, then)
