"""The lock that only one migrating process holds."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from agentexec.db.errors import translating_db_errors
from agentexec.errors import UsageError

LOCK_SECONDS = 120
"""Seconds that a process waits for another one that migrates, or for a table in use; and for one that is frozen meanwhile."""

POSTGRES_LOCK = 0x6167656E74  # "agent" in ASCII: an advisory lock's key is a number
MYSQL_LOCK = "agentexec_migrate"


@contextmanager
def migration_lock(engine: Engine) -> Generator[Connection]:
    """Open a connection under the lock, and commit at the end; other processes wait.

    Raises UsageError if another process holds the lock for too long, UnavailableError.
    """
    with translating_db_errors(engine), engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # Before anything is read: the file's write lock serves as the advisory lock.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()
            return
        if engine.dialect.name == "postgresql":
            # The lock's transaction sees what was committed while it waited, whatever the engine's own level is.
            connection = connection.execution_options(isolation_level="READ COMMITTED")
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{LOCK_SECONDS}s'"))
            _lock_postgres(connection)
            yield connection
            connection.commit()
            return
        _lock_mysql(connection)
        _limit_mysql(connection, LOCK_SECONDS)
        connection.commit()
        try:
            yield connection
            connection.commit()
        finally:
            with suppress(OperationalError):
                connection.rollback()
                _unlock_mysql(connection)
                _limit_mysql(connection, "DEFAULT")
                connection.commit()


@contextmanager
def hold_migration_lock(connection: Connection) -> Generator[None]:
    """Hold the lock on a connection whose transaction belongs to the caller: until its end, where the database can."""
    if connection.dialect.name == "sqlite":
        # Fails if the transaction has begun; then the first statement that writes takes the lock.
        with suppress(OperationalError):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
    elif connection.dialect.name == "postgresql":
        _lock_postgres(connection)
        yield
    else:
        _lock_mysql(connection)
        try:
            yield
        finally:
            _unlock_mysql(connection)


def _lock_postgres(connection: Connection) -> None:
    """Lock until the end of the transaction: a pooler may give the next one to another session."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRES_LOCK})


def _lock_mysql(connection: Connection) -> None:
    values = {"name": MYSQL_LOCK, "wait": LOCK_SECONDS}
    if connection.execute(text("SELECT GET_LOCK(:name, :wait)"), values).scalar() != 1:
        raise UsageError("Another process has been migrating this database for two minutes; try again later.")


def _limit_mysql(connection: Connection, seconds: float | str) -> None:
    """Limit the silence of the session, which a frozen process would keep open, and its waits for tables in use."""
    connection.execute(text(f"SET SESSION wait_timeout = {seconds}, SESSION lock_wait_timeout = {seconds}"))


def _unlock_mysql(connection: Connection) -> None:
    connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": MYSQL_LOCK})
