"""SQLite: its settings, and its lock for writers."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import Connection

BUSY_TIMEOUT_MS = 10_000
"""Milliseconds that a SQLite writer waits for another; the longest transaction of ours takes a fraction of it."""

BUSY_STEP = 0.0004
"""Seconds between two tries for SQLite's write lock."""

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_BUSY_SNAPSHOT)


def tune_sqlite(connection: Any, _record: Any) -> None:
    """WAL lets readers go on beside a writer; NORMAL is safe against a killed process with WAL."""
    cursor = connection.cursor()
    # Before the switch to WAL, which itself needs the lock that another starting process may hold.
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Refused, without waiting, while another connection is in use. The file remembers the mode, so the next
            # connection that is alone switches for all.
            if error.sqlite_errorcode not in BUSY:
                raise
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def take_write_lock(connection: Connection) -> None:
    """BEGIN IMMEDIATE, asking again in short steps while another has the lock.

    SQLite's own waiting doubles its sleeps up to 100 ms, many times what our transactions take.
    """
    raw: Any = connection.connection.dbapi_connection
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    raw.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in BUSY or time.monotonic() > deadline:
                    raise exc.OperationalError("BEGIN IMMEDIATE", None, error) from error
            time.sleep(BUSY_STEP)
    finally:
        raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
