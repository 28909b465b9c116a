"""Connection poolers in front of PostgreSQL, such as PgBouncer: detection, and connections that work through them.

A pooler in transaction mode gives each transaction any of its server sessions. Whatever a session keeps is then lost or
another's: prepared statements, LISTEN, settings, locks.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections.abc import Generator
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Dialect, Engine, event

from agentexec.db.psycopg_parameters import read_parameters

if TYPE_CHECKING:
    import psycopg

OPTION = "agentexec_pooler"
"""Execution option of an engine that holds its `PoolerCheck`."""

PROBE_SECONDS = 1.0
"""Seconds for a session to answer, and for a notification to arrive, before it counts as missing."""

CHECK_SECONDS = 30.0
"""Longest wait of a thread for another one's check, in seconds."""

PREPARE_THRESHOLD = 5
"""psycopg's own `prepare_threshold`: another value is a person's choice."""


class Pooling(Enum):
    """Relation of an engine's connections to the sessions of the server."""

    NONE = "none"
    SESSION = "session"
    TRANSACTION = "transaction"

    @property
    def keeps_session(self) -> bool:
        """True if a connection stays with one session."""
        return self is not Pooling.TRANSACTION


class PoolerCheck:
    """Check of one engine, made with its first connection, and the adaptation of its connections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._checking = False
        self._stated: bool | None = None
        self._chosen_threshold = False
        self._async_is_direct: bool | None = None
        self.pooling: Pooling | None = None
        """None until the first connection."""

    def on_connect(
        self, dialect: Dialect, _record: Any, _args: list[Any], parameters: dict[str, Any]
    ) -> None:
        """Read the parameters of a connection before it is made."""
        stated = read_parameters(parameters, dialect.loaded_dbapi)
        # SQLAlchemy 2.0 passes the same parameters again, from which the statement is removed.
        self._stated = self._stated if stated is None else stated
        self._chosen_threshold = "prepare_threshold" in parameters

    def on_checkout(self, connection: Any, _record: Any, _proxy: Any) -> None:
        """Check the engine with its first connection, and switch prepared statements off where they would vanish."""
        if self.pooling is None:
            self._check(connection)
        if (
            self.pooling is Pooling.TRANSACTION
            and not self._chosen_threshold
            and connection.prepare_threshold == PREPARE_THRESHOLD
        ):
            connection.prepare_threshold = None

    def on_async_checkout(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Do so for the application's async engine, on whose event loop the whole check would block."""
        if self._chosen_threshold:
            return
        raw = connection.driver_connection
        if self._async_is_direct is None:
            self._async_is_direct = self._find_async_direct(connection)
        if self._async_is_direct or (self.pooling is not None and self.pooling.keeps_session):
            if record.info.pop(OPTION, False):
                raw.prepare_threshold = PREPARE_THRESHOLD
        elif raw.prepare_threshold == PREPARE_THRESHOLD:
            raw.prepare_threshold, record.info[OPTION] = None, True

    def _find_async_direct(self, connection: Any) -> bool:
        if self._stated is not None:
            return not self._stated
        cursor = connection.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        [(pid,)] = cursor.fetchall()
        cursor.close()
        connection.rollback()
        return bool(pid == connection.driver_connection.info.backend_pid)

    def _check(self, connection: Any) -> None:
        # With a timeout: a fork may have copied the lock while a thread held it.
        acquired = self._lock.acquire(timeout=CHECK_SECONDS)
        try:
            if self.pooling is not None or self._checking:
                return
            self._checking = True
            try:
                self.pooling = self._find_pooling(connection)
            finally:
                self._checking = False
        finally:
            if acquired:
                self._lock.release()

    def _find_pooling(self, connection: psycopg.Connection[Any]) -> Pooling:
        if self._stated is not None:
            return Pooling.TRANSACTION if self._stated else Pooling.NONE
        pid = _backend_pid(connection)
        # A pooler answers the login itself, with a process id that it makes up.
        if pid == connection.info.backend_pid:
            return Pooling.NONE
        try:
            with self._spare_connection() as spare:
                spare_pid = _backend_pid_in_time(spare)
                if spare_pid in (pid, None):
                    return Pooling.TRANSACTION
                # Twice: of two sessions that are given out in turn, the first comes back after the spare connection's.
                if any(_backend_pid(connection) != pid for _ in range(2)):
                    return Pooling.TRANSACTION
                return Pooling.SESSION if _hears(spare, connection) else Pooling.TRANSACTION
        except self._engine.dialect.loaded_dbapi.Error:
            return Pooling.TRANSACTION  # which works in every mode

    @contextlib.contextmanager
    def _spare_connection(self) -> Generator[psycopg.Connection[Any]]:
        """Open a connection beside the engine's pool, which may allow no further one."""
        pool = self._engine.pool.recreate()
        pooled = pool.connect()
        try:
            spare: Any = pooled.driver_connection
            spare.autocommit = True
            yield spare
        finally:
            pooled.invalidate()
            pool.dispose()


def adapt_to_pooler(engine: Engine) -> None:
    """Have an engine's connections work through a pooler, if there is one. A second call has no effect."""
    if engine.dialect.driver != "psycopg" or OPTION in engine.get_execution_options():
        return
    check = PoolerCheck(engine)
    engine.update_execution_options(**{OPTION: check})
    event.listen(engine, "do_connect", check.on_connect)
    event.listen(engine, "checkout", check.on_checkout)


def adapt_async_to_pooler(engine: Engine, twin: Engine) -> None:
    """Do the same for the inside of an async engine, whose synchronous twin has a check."""
    check: PoolerCheck | None = twin.get_execution_options().get(OPTION)
    if check is None or engine.dialect.driver != "psycopg" or OPTION in engine.get_execution_options():
        return
    engine.update_execution_options(**{OPTION: check})
    event.listen(engine, "do_connect", check.on_connect)
    event.listen(engine, "checkout", check.on_async_checkout)


def pooling_of(engine: Engine) -> Pooling:
    """Return what an engine's first connection found out; `Pooling.NONE` before it, and for other databases."""
    check: PoolerCheck | None = engine.get_execution_options().get(OPTION)
    return (check.pooling if check is not None else None) or Pooling.NONE


def _backend_pid(connection: psycopg.Connection[Any]) -> int:
    """Return the process id of the session that serves a connection now."""
    [(pid,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    connection.rollback()
    return int(pid)


def _backend_pid_in_time(connection: psycopg.Connection[Any]) -> int | None:
    """Return the same, or None if no session serves the connection in time: a pooler may have none left."""
    raw = connection.pgconn
    raw.send_query(b"SELECT pg_backend_pid()")
    deadline = time.monotonic() + PROBE_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(raw.socket, selectors.EVENT_READ)
        while raw.is_busy():
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            raw.consume_input()
    result = raw.get_result()
    value = result.get_value(0, 0) if result is not None and result.ntuples else None
    raw.get_result()  # the end of the answer
    return None if value is None else int(value)


def _hears(listener: psycopg.Connection[Any], sender: psycopg.Connection[Any]) -> bool:
    """Return True if a connection receives a notification while it is idle, so that it owns its session.

    The channel is a new one: through a pooler, the session goes on listening to it for nobody.
    """
    channel = f"agentexec_{uuid4().hex}"
    listener.execute(f'LISTEN "{channel}"'.encode())
    sender.execute("SELECT pg_notify(%s, '')", (channel,))
    sender.commit()
    heard = any(True for _ in listener.notifies(timeout=PROBE_SECONDS, stop_after=1))
    listener.execute(f'UNLISTEN "{channel}"'.encode())
    return heard
