"""Settings of SQLite, and its write lock."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import Connection

BUSY_TIMEOUT_MS = 10_000
"""Milliseconds that a SQLite writer waits for another one; agentexec's longest transaction takes a fraction of that."""

BUSY_STEP, MAX_BUSY_STEP = 0.0003, 0.004
"""Seconds between two tries to take SQLite's write lock: at first, and at most. Each pause is half as long again as the one before."""

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_BUSY_SNAPSHOT)
"""Error codes of a database that another connection has locked."""


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
    """Begin a transaction with the write lock, retrying in short steps while another connection has the lock.

    SQLite's own wait doubles its sleeps up to 100 ms, many times as long as agentexec's transactions.
    """
    raw: Any = connection.connection.dbapi_connection
    deadline, step = time.monotonic() + BUSY_TIMEOUT_MS / 1000, BUSY_STEP
    raw.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in BUSY or time.monotonic() > deadline:
                    raise exc.OperationalError("BEGIN IMMEDIATE", None, error) from error
            time.sleep(step)
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
