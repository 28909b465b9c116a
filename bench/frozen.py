"""Processes that are suspended between their transactions, so that none holds a lock of the database meanwhile."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing

import psutil
import psycopg
import pymysql
from sqlalchemy import make_url

from bench.targets import BenchError

TRIES, REST = 200, 0.02
"""Moments that are tried, and seconds between them."""


def suspend(processes: Sequence[psutil.Process], database_url: str | None) -> None:
    """Suspend processes at a moment when the database has no open transaction. Raises BenchError if there is none."""
    for _ in range(TRIES):
        for process in processes:
            process.suspend()
        if database_url is None or not _in_transaction(database_url):
            return
        resume(processes)
        time.sleep(REST)
    raise BenchError("the workers are never between two transactions")


def resume(processes: Sequence[psutil.Process]) -> None:
    """Resume suspended processes."""
    for process in reversed(processes):
        process.resume()


def _in_transaction(database_url: str) -> bool:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(url.database or "", timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False
    if url.get_backend_name() in ("mysql", "mariadb"):
        connection = pymysql.connect(host=url.host, port=url.port or 3306, user=url.username, autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx")
            found = cursor.fetchone()
            return found is None or found[0] > 0
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        # A statement under way ends by itself; a transaction that waits for its frozen client does not.
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            " OR (state = 'active' AND pid <> pg_backend_pid() AND backend_type = 'client backend')"
        ).fetchone()
    return row is None or row[0] > 0
