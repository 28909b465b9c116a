"""Settings of SQLite, and its write lock."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

BUSY_TIMEOUT_MS = 10_000
"""Milliseconds that a SQLite writer waits for another one; agentexec's longest transaction takes a fraction of that."""

BUSY_STEP, MAX_BUSY_STEP = 0.0003, 0.004
"""Seconds between two tries to take SQLite's write lock: at first, and at most. Each pause is half as long again as the one before."""

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_BUSY_SNAPSHOT)
"""Error codes of a database that another connection has locked."""

OPTION = "agentexec_write_lock"
"""Execution option of an engine that holds its WriteLock."""


class LockHolder(Protocol):
    """A transaction with the write lock that may stay open while nothing of this process runs in it."""

    def give_way(self) -> None:
        """Roll the transaction back if it cannot end before the calling thread, which wants the lock, goes on."""
        ...


class WriteLock:
    """The write lock of an engine's database, as far as this process knows who has it."""

    def __init__(self) -> None:
        self.holder: weakref.ref[LockHolder] | None = None
        """Latest holder that said so; it may have released the lock."""
        self.releases = 0
        """Number of transactions of this process that have ended."""
        self._changed = threading.Condition()

    def note_release(self) -> None:
        """Let the threads of this process that wait for the lock try again."""
        with self._changed:
            self.releases += 1
            self._changed.notify_all()

    def wait(self, releases: int, timeout: float) -> None:
        """Wait up to `timeout` seconds until more than `releases` transactions of this process have ended."""
        with self._changed:
            self._changed.wait_for(lambda: self.releases != releases, timeout)

    def ask_holder(self) -> None:
        """Ask the noted holder to give way."""
        holder = None if self.holder is None else self.holder()
        if holder is not None:
            holder.give_way()


def watch_write_lock(engine: Engine) -> None:
    """Let transactions of an engine say that they hold the write lock. A second call has no effect."""
    if OPTION not in engine.get_execution_options():
        engine.update_execution_options(**{OPTION: WriteLock()})


def note_lock_holder(connection: Connection, holder: LockHolder) -> None:
    """Note who has the write lock that a connection has taken: threads that wait for it ask the holder to give way."""
    _lock_of(connection).holder = weakref.ref(holder)


@contextmanager
def noting_release(engine: Engine) -> Generator[None]:
    """Tell the threads that wait for the write lock when the block, a transaction with it, has ended."""
    try:
        yield
    finally:
        _lock_of(engine).note_release()


def _lock_of(user: Connection | Engine) -> WriteLock:
    """Return the write lock of an engine; one that nobody else knows if the engine is not watched."""
    return user.get_execution_options().get(OPTION) or WriteLock()


def tune_sqlite(connection: Any, _record: Any) -> None:
    """Prepare a new connection. WAL lets readers continue beside a writer; with WAL, NORMAL survives a killed process."""
    cursor = connection.cursor()
    # Before the switch to WAL, which needs the lock that another starting process may hold.
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # SQLite refuses at once while another connection is in use. The file remembers the mode, so the next
            # connection that is alone switches it for all.
            if error.sqlite_errorcode not in BUSY:
                raise
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def take_write_lock(connection: Connection) -> None:
    """Begin a transaction with the write lock, retrying in short steps while another process has the lock.

    SQLite's own wait doubles its sleeps up to 100 ms, many times as long as agentexec's transactions. The end of a
    transaction of this process ends a step at once.
    """
    lock = _lock_of(connection)
    raw: Any = connection.connection.dbapi_connection
    deadline, step = time.monotonic() + BUSY_TIMEOUT_MS / 1000, BUSY_STEP
    raw.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            releases = lock.releases
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in BUSY or time.monotonic() > deadline:
                    raise exc.OperationalError("BEGIN IMMEDIATE", None, error) from error
            lock.ask_holder()
            lock.wait(releases, step)
            step = min(1.5 * step, MAX_BUSY_STEP)
    finally:
        raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


def file_problem(path: Path) -> str | None:
    """Return why a database file cannot be opened, which SQLite does not say, or None if nothing is wrong with it."""
    folder = path.parent
    if path.is_dir():
        return "it is a folder"
    if not folder.is_dir():
        return f"the folder {folder} does not exist"
    if not path.exists():
        return None if os.access(folder, os.W_OK | os.X_OK) else f"the folder {folder} cannot be written"
    if not os.access(path, os.R_OK | os.W_OK):
        return "this user may not read and write the file"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder} cannot be written, and SQLite keeps its journal there"
    return None
