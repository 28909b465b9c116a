"""Waking up those who wait on the SQL backend.

PostgreSQL tells (LISTEN/NOTIFY). SQLite is asked for its `data_version`, which costs microseconds, by one thread for
all who wait in a process: on Linux when the kernel says that the file's log was written, elsewhere by the clock.
MySQL can do neither and is polled with a growing interval.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from agentexec.config import CONF
from agentexec.db.transactions import writing
from agentexec.outage import backoff
from agentexec.state.sql_backend.file_watch import FileWatch

log = logging.getLogger("agentexec.state")

FIRST_LOOK, LAST_LOOK = 0.0005, 0.012
"""Seconds between looks at SQLite's data_version: just after a change, doubling up to the last."""

WATCH_SLICE = 1.0
POLL_FIRST, POLL_MOST = 0.005, 0.05
LISTEN_SLICE = 1.0
READY_SECONDS = 5.0


class Wakeup:
    """Lets threads wait until something may have changed; in-process changes wake them at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._generation = 0
        self._waiting = 0
        self._closed = False
        self._watching = False
        self._thread: threading.Thread | None = None

    def mark(self) -> int:
        """The present state; pass it to `wait` to hear of everything that comes after it."""
        with self._changed:
            self._prepare()
            # Changes count from a known state on, and the thread has to learn it first.
            self._changed.wait_for(lambda: self._watching or self._closed, READY_SECONDS)
            return self._generation

    def wait(self, since: int, timeout: float) -> None:
        """Return when something has changed after `mark` gave `since`, or after `timeout` seconds."""
        with self._changed:
            self._waiting += 1
            if self._waiting == 1:
                self._changed.notify_all()  # the thread may rest
            try:
                self._changed.wait_for(lambda: self._generation != since or self._closed, timeout)
            finally:
                self._waiting -= 1

    def announce(self, transaction: Any | None = None) -> None:
        """Wake everyone who waits: in this process at once, elsewhere as the database can."""
        self._bump()

    def close(self) -> None:
        """End the thread; a later wait starts it anew."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _bump(self) -> None:
        with self._changed:
            self._watching = True
            self._generation += 1
            self._changed.notify_all()

    def _prepare(self) -> None:
        """Have the thread that watches the database run; called under the lock."""
        if self._thread is None or not self._thread.is_alive():
            self._closed = self._watching = False
            self._thread = threading.Thread(target=self._watch, name="agentexec-wakeup", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        raise NotImplementedError

    def _own_connection(self) -> Any:
        """A driver's connection that the engine's pool does not count."""
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        return connection


class SqliteWakeup(Wakeup):
    """Watches the file's version counter: when the kernel says that its log was written, else by the clock."""

    def _watch(self) -> None:
        failures = 0
        while not self._closed:
            try:
                self._watch_connection()
            except SQLAlchemyError:
                failures += 1
                time.sleep(backoff(failures))

    def _watch_connection(self) -> None:
        log_file = Path(f"{self._engine.url.database}-wal").absolute()
        with contextlib.closing(self._own_connection()) as connection, contextlib.ExitStack() as stack:
            watch = FileWatch.open(log_file)
            if watch is not None:
                stack.callback(watch.close)
            ask = connection.cursor().execute
            known = None
            pause = FIRST_LOOK
            while not self._closed:
                version = ask("PRAGMA data_version").fetchone()
                if version != known:
                    known, pause = version, FIRST_LOOK
                    self._bump()
                if not self._waiting:
                    self._rest()
                elif pause < LAST_LOOK:
                    # A commit is visible a moment after its log is written: look again, and again later.
                    time.sleep(pause)
                    pause *= 2
                elif watch is None:
                    time.sleep(LAST_LOOK)
                elif watch.wait(WATCH_SLICE):
                    pause = FIRST_LOOK

    def _rest(self) -> None:
        """Nobody waits: look again when somebody does."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed, 60.0)


class PostgresWakeup(Wakeup):
    """Listens on a connection of its own."""

    @property
    def _channel(self) -> str:
        return f"{CONF.table_prefix}wake"

    def announce(self, transaction: Any | None = None) -> None:
        notify = text("SELECT pg_notify(:channel, '')")
        if transaction is not None:
            transaction.execute(notify, {"channel": self._channel})
            return
        self._bump()
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(notify, {"channel": self._channel})

    def _watch(self) -> None:
        failures = 0
        while not self._closed:
            try:
                self._listen()
                failures = 0
            except Exception as error:
                # Whatever a driver raises when its server goes away; waits time out until it is back.
                failures += 1
                if failures == 1:
                    log.warning("Listening on the database was interrupted: %s.", type(error).__name__)
                time.sleep(backoff(failures))

    def _listen(self) -> None:
        with contextlib.closing(self._own_connection()) as connection:
            connection.rollback()
            connection.autocommit = True
            connection.execute(f'LISTEN "{self._channel}"')
            self._bump()
            while not self._closed:
                for _ in connection.notifies(timeout=LISTEN_SLICE):
                    self._bump()


class PollingWakeup(Wakeup):
    """No signal to be had: a wait is a short sleep, longer the longer nothing happens."""

    def mark(self) -> int:
        return self._generation

    def wait(self, since: int, timeout: float) -> None:
        pause = POLL_FIRST
        idle_since = getattr(self, "_idle_since", None)
        now = time.monotonic()
        if idle_since is None or self._generation != since:
            self._idle_since = now
        else:
            pause = min(POLL_MOST, max(POLL_FIRST, (now - idle_since) / 20))
        with self._changed:
            self._changed.wait_for(lambda: self._generation != since, min(pause, timeout))

    def found(self) -> None:
        """Something was there: poll eagerly again."""
        self._idle_since = time.monotonic()


def make_wakeup(engine: Engine) -> Wakeup:
    """The best that the database can do."""
    if engine.dialect.name == "sqlite":
        return SqliteWakeup(engine)
    if engine.dialect.name == "postgresql" and engine.dialect.driver == "psycopg":
        return PostgresWakeup(engine)
    return PollingWakeup(engine)
