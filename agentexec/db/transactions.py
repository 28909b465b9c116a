"""Transactions that write, and connections to read from."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from agentexec.db.errors import translating_db_errors
from agentexec.db.round_trips import BY_KEY_ONLY, RELAXED, batched
from agentexec.db.sqlite import take_write_lock


@contextmanager
def writing(engine: Engine, *, relaxed: bool = False, by_key_only: bool = True) -> Generator[Connection]:
    """Open a transaction that writes, and commit it at the end of the block.

    On SQLite it takes the write lock at its beginning: a transaction that reads first and writes later fails
    immediately, whatever the timeout, when another one has written in between.

    Args:
        relaxed: Let PostgreSQL confirm the commit before it is on disk, for rows that may be lost if the server crashes.
        by_key_only: Keep PostgreSQL from reading whole tables; False for a transaction that only inserts.

    Raises:
        UnavailableError: The database cannot be reached or is overloaded.
    """
    with translating_db_errors(engine), engine.begin() as connection:
        if has_single_writer(engine):
            take_write_lock(connection)
        elif engine.dialect.name == "postgresql" and (relaxed or by_key_only):
            with batched(connection):
                settings = [RELAXED] * relaxed + [BY_KEY_ONLY] * by_key_only
                connection.exec_driver_sql(f"SELECT {', '.join(settings)}")
        yield connection


@contextmanager
def autocommitting(engine: Engine) -> Generator[Connection]:
    """Open a connection on which each statement is its own transaction, without round trips for BEGIN and COMMIT."""
    with translating_db_errors(engine), engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """Open a connection to read from; raises UnavailableError if the database cannot be reached."""
    with translating_db_errors(engine), engine.connect() as connection:
        yield connection


def has_single_writer(engine: Engine) -> bool:
    """Return True if the database lets one transaction write at a time."""
    return engine.dialect.name == "sqlite"
