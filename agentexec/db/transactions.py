"""Transactions that write, and connections to read from."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from agentexec.db.errors import translating_db_errors
from agentexec.db.lock_limits import limit_session, transaction_limits, unlimit_session
from agentexec.db.quick_connection import quick_connection
from agentexec.db.resets import noting_commit, resets_by_need
from agentexec.db.round_trips import BY_KEY_ONLY, IN_INDEX_ORDER, RELAXED, batched, can_batch
from agentexec.db.sqlite import noting_release, take_write_lock


@contextmanager
def writing(
    engine: Engine,
    *,
    relaxed: bool = False,
    by_key_only: bool = True,
    in_index_order: bool = False,
    limited: bool = True,
) -> Generator[Connection]:
    """Open a transaction that writes, and commit it at the end of the block.

    On SQLite it takes the write lock at its beginning: a transaction that reads first and writes later fails
    immediately, whatever the timeout, when another one has written in between.

    Args:
        relaxed: Let PostgreSQL confirm the commit before it is on disk, for rows that may be lost if the server crashes.
        by_key_only: Keep PostgreSQL from reading whole tables.
        in_index_order: Also keep it from collecting and sorting rows that an index has in order.
        limited: Have the server end the transaction if this process is frozen in it; False if users' code runs in it.

    Raises:
        UnavailableError: The database cannot be reached or is overloaded.
    """
    single = has_single_writer(engine)
    told: AbstractContextManager[None] = noting_release(engine) if single else nullcontext()
    with (
        translating_db_errors(engine),
        told,
        quick_connection(engine) as connection,
        noting_commit(connection),
        connection.begin(),
    ):
        if single:
            take_write_lock(connection)
        elif engine.dialect.name == "postgresql":
            settings = [RELAXED] * relaxed
            settings += [IN_INDEX_ORDER] if in_index_order else [BY_KEY_ONLY] * by_key_only
            settings += [transaction_limits(engine.dialect)] * limited
            if settings:
                with batched(connection):
                    connection.exec_driver_sql(f"SELECT {', '.join(settings)}")
        elif limited:
            limit_session(connection)
        else:
            unlimit_session(connection)
        yield connection


@contextmanager
def inserting(engine: Engine, *, relaxed: bool = False, by_key_only: bool = False) -> Generator[Connection]:
    """Open a transaction that inserts, in one round trip where the database can: it ends with the block.

    Use it for statements whose results nobody reads. `relaxed` and `by_key_only` as for `writing`; with the latter, they may
    also update and delete.
    """
    if engine.dialect.name != "postgresql" or not can_batch(engine.dialect):
        with writing(engine, relaxed=relaxed, by_key_only=by_key_only) as connection:
            yield connection
        return
    with (
        writing(engine, by_key_only=False, limited=False) as connection,
        batched(connection, commit=True),
    ):
        settings = [RELAXED] * relaxed + [BY_KEY_ONLY] * by_key_only + [transaction_limits(engine.dialect)]
        connection.exec_driver_sql(f"SELECT {', '.join(settings)}")
        yield connection


@contextmanager
def autocommitting(engine: Engine) -> Generator[Connection]:
    """Open a connection on which each statement is its own transaction, without round trips for BEGIN and COMMIT."""
    with translating_db_errors(engine), engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def reading(
    engine: Engine, *, by_key_only: bool = False, in_index_order: bool = False
) -> Generator[Connection]:
    """Open a connection to read from; raises UnavailableError if the database cannot be reached.

    On PostgreSQL `by_key_only` and `in_index_order`, which mean the same as for `writing`, take a round trip more.
    """
    with translating_db_errors(engine), quick_connection(engine) as connection:
        if (by_key_only or in_index_order) and engine.dialect.name == "postgresql":
            with batched(connection):
                connection.exec_driver_sql(f"SELECT {IN_INDEX_ORDER if in_index_order else BY_KEY_ONLY}")
        yield connection
        # After a rollback psycopg would drop all prepared statements. On MySQL it is the round trip that ends the transaction.
        if connection.in_transaction() and not resets_by_need(connection):
            connection.commit()


@contextmanager
def looking_up(engine: Engine) -> Generator[Connection]:
    """Open a connection for reads that are independent of each other; raises UnavailableError as `reading` does.

    On PostgreSQL each of them is one round trip, instead of three with BEGIN and ROLLBACK.
    """
    if engine.dialect.name == "postgresql":
        with autocommitting(engine) as connection:
            yield connection
    else:
        with reading(engine) as connection:
            yield connection


def has_single_writer(engine: Engine) -> bool:
    """Return True if the database lets one transaction write at a time."""
    return engine.dialect.name == "sqlite"
