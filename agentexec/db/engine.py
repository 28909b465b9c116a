"""The database of the record: declarative base, engines and transactions."""

from __future__ import annotations

import functools
import math
import random
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy import (
    Dialect,
    Engine,
    create_engine,
    event,
    exc,
)
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.engine.url import URL
from sqlalchemy.orm import DeclarativeBase

from agentexec.errors import SchemaError, UnavailableError, UsageError
from agentexec.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

P = ParamSpec("P")
R = TypeVar("R")

BUSY_TIMEOUT_MS = 10_000
"""Milliseconds that a SQLite writer waits for another; the longest transaction of ours takes a fraction of it."""

PING_AFTER = 1.0
"""Seconds of rest after which a connection is tried before use: no database restarts in less."""

BUSY_STEP = 0.0004
"""Seconds between two tries for SQLite's write lock."""

DEADLOCK_TRIES = 5
DEADLOCK_PAUSE = 0.02
"""Seconds, at most, before a transaction that lost runs again: the one that it let pass must get its locks first."""

DEADLOCK = ("40P01", 1213)
"""What PostgreSQL and MySQL call a transaction that they ended to let another pass."""

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_BUSY_SNAPSHOT)

SYNC_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}


RELAXED = "set_config('synchronous_commit', 'off', true)"
"""For a transaction on PostgreSQL: its commit is confirmed before it is on disk."""

BY_KEYS = "set_config('enable_seqscan', 'off', true)"
"""The same: all is found by keys. A plan made while a table is small would read the whole of it, and be kept."""

OUTAGES = (exc.OperationalError, exc.InterfaceError)
MISSING_TABLE = ("no such table", "no such column", "has no column", "(1146,", "(1054,")
"""What SQLite and MySQL say of a missing table or column; PostgreSQL has codes for it."""


class Base(DeclarativeBase):
    """Declarative base of every agentexec table: `ax.Base.metadata.create_all(engine)` makes them."""


CHUNK_SIZE = 500
"""Ids in one statement: below every database's limit on parameters."""


def chunks(ids: Sequence[Any]) -> Iterator[list[Any]]:
    """Parts of at most CHUNK_SIZE."""
    return (list(ids[start : start + CHUNK_SIZE]) for start in range(0, len(ids), CHUNK_SIZE))


def utc_now() -> datetime:
    """The present moment, aware."""
    return datetime.now(UTC)


def sync_url(url: str | URL) -> URL:
    """The URL with the driver that agentexec uses for its database; raises UsageError for a malformed URL."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise UsageError(
            "The database URL cannot be read; write it like postgresql://user:password@host/name or sqlite:///file.db."
        ) from None
    name, _, driver = parsed.drivername.partition("+")
    if not driver or driver in ("aiosqlite", "asyncpg", "aiomysql", "asyncmy"):
        return parsed.set(drivername=SYNC_DRIVERS.get(name, parsed.drivername))
    return parsed


def open_engine(url: str | URL) -> Engine:
    """Make an engine for a URL, with the pool and time-outs that workers need.

    Raises UsageError for a malformed URL, an unknown database, or a driver that is not installed.
    """
    parsed = sync_url(url)
    dialect = parsed.get_backend_name() if parsed.drivername else ""
    # A statement's parameters are users' data: no error and no log may quote them.
    options: dict[str, Any] = {"hide_parameters": True}
    if dialect != "sqlite":
        options |= {"pool_size": 10, "max_overflow": 20, "pool_recycle": 1800}
        if (dialect == "postgresql" and "connect_timeout" not in parsed.query) or dialect in (
            "mysql",
            "mariadb",
        ):
            options["connect_args"] = {"connect_timeout": 10}
        if dialect in ("mysql", "mariadb"):
            # As PostgreSQL does by default: without the locks on gaps between rows, over which claims deadlock.
            options["isolation_level"] = "READ COMMITTED"
    try:
        engine = create_engine(parsed, **options)
    except exc.NoSuchModuleError:
        raise UsageError(
            f"There is no SQLAlchemy dialect for {parsed.drivername}; use PostgreSQL, MySQL or SQLite."
        ) from None
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(dialect)
        advice = f"install agentexec[{extra}]" if extra else f"install {error.name}"
        raise UsageError(f"The database driver {error.name} is not installed; {advice}.") from None
    if dialect != "sqlite":
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", functools.partial(_ping_rested, engine.dialect))
    prepare_engine(engine)
    return engine


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_rested(dialect: Dialect, connection: Any, record: Any, _proxy: Any) -> None:
    """Have a connection that a restarted database has dropped replaced before use, not after an error.

    SQLAlchemy's own way asks at every use, which is a round trip more for each transaction.
    """
    if time.monotonic() - record.info.get("used", math.inf) < PING_AFTER:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise exc.DisconnectionError from error


def prepare_engine(engine: Engine | AsyncEngine) -> Engine:
    """The synchronous engine to use for an engine that the user made, tuned where SQLite needs it.

    An AsyncEngine gets a synchronous twin on the same URL. Calling this twice does nothing more.
    """
    if not isinstance(engine, Engine):  # not by isinstance(AsyncEngine): its module needs greenlet installed
        return open_engine(engine.url)
    if engine.dialect.name == "sqlite" and not event.contains(engine, "connect", _tune_sqlite):
        event.listen(engine, "connect", _tune_sqlite)
    return engine


def _tune_sqlite(connection: Any, _record: Any) -> None:
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


@contextmanager
def writing(engine: Engine, *, relaxed: bool = False, by_key_only: bool = True) -> Generator[Connection]:
    """A transaction that will write, committed at the end of the block.

    On SQLite it takes the write lock at its beginning: a transaction that reads first and writes later fails
    at once when another has written in between, whatever the time-out. `relaxed` lets PostgreSQL confirm the
    commit before it is on disk, for what may be lost with the server's last moments. `by_key_only`: False for a
    transaction that only inserts.
    Raises UnavailableError when the database cannot be reached or is overloaded.
    """
    with translating_db_errors(engine), engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            _take_write_lock(connection)
        elif engine.dialect.name == "postgresql" and (relaxed or by_key_only):
            with batched(connection):
                settings = [RELAXED] * relaxed + [BY_KEYS] * by_key_only
                connection.exec_driver_sql(f"SELECT {', '.join(settings)}")
        yield connection


@contextmanager
def autocommitting(engine: Engine) -> Generator[Connection]:
    """A connection on which each statement is a transaction by itself, without the trips of BEGIN and COMMIT."""
    with translating_db_errors(engine), engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def can_batch(dialect: Dialect) -> bool:
    """True where several statements can go in one round trip: with psycopg 3 and a libpq that knows how."""
    dbapi: Any = dialect.loaded_dbapi
    return dialect.driver == "psycopg" and not dialect.is_async and dbapi.Pipeline.is_supported()


@contextmanager
def batched(connection: Connection, *, commit: bool = False) -> Generator[None]:
    """Send the statements of the block in one round trip, where the database can.

    For statements whose result, even their number of rows, nobody reads; their errors may come later in the block, or at
    its end. `commit`: the transaction, a `writing` of the caller's own, ends with the block, and its commit goes along.
    """
    if not can_batch(connection.dialect):
        yield
        return
    with _pipeline(connection):
        yield
        if commit:
            connection.exec_driver_sql("COMMIT")  # the driver's own commit waits for an answer first


def run_in_one_round_trip(
    engine: Engine, statement: str, values: dict[str, Any], *, relaxed: bool
) -> list[tuple[Any, ...]]:
    """Run a statement of psycopg's as a transaction in one round trip; returns its rows. `relaxed` as for `writing`."""
    with translating_db_errors(engine), engine.begin() as connection:
        with _pipeline(connection) as raw:
            raw.execute(f"SELECT {RELAXED}, {BY_KEYS}" if relaxed else f"SELECT {BY_KEYS}")
            cursor = raw.execute(statement, values)
            raw.execute("COMMIT")
        return cursor.fetchall()


@contextmanager
def _pipeline(connection: Connection) -> Generator[Any]:
    dialect = connection.dialect
    dbapi: Any = dialect.loaded_dbapi
    raw: Any = connection.connection.driver_connection
    failure: Exception | None = None
    try:
        with raw.pipeline():
            try:
                yield raw
            except (exc.DBAPIError, dbapi.Error) as error:
                # Kept from the pipeline, which would log that it ends in another one.
                failure = error
    except dbapi.Error as error:
        failure = failure or error
    if isinstance(failure, exc.DBAPIError):
        raise failure
    if failure is not None:
        raise exc.DBAPIError.instance(None, None, failure, dbapi.Error, dialect=dialect) from failure


def _take_write_lock(connection: Connection) -> None:
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


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """A connection to read from; raises UnavailableError when the database cannot be reached."""
    with translating_db_errors(engine), engine.connect() as connection:
        yield connection


@contextmanager
def translating_db_errors(engine: Engine) -> Generator[None]:
    """Turn a driver's errors into UnavailableError, to be waited out, or SchemaError, which waiting will not mend."""
    try:
        yield
    except exc.DBAPIError as error:
        if _is_missing_table(error):
            raise SchemaError(
                f"The database {safe_url(engine.url)} lacks agentexec's tables; run `agentexec migrate`."
            ) from error
        # sqlite3 has no class of its own for a file that is damaged or no database at all.
        if isinstance(error, OUTAGES) or type(error) is exc.DatabaseError or error.connection_invalidated:
            raise UnavailableError(
                f"The database {safe_url(engine.url)} cannot be used: {_reason(error)}."
            ) from error
        raise
    except exc.TimeoutError as error:
        raise UnavailableError(
            f"The database {safe_url(engine.url)} has no free connection: {_reason(error)}."
        ) from error


def retry_on_deadlock(call: Callable[P, R]) -> Callable[P, R]:
    """Call a function that is one transaction, or several that may be repeated, again when it lost to a deadlock."""

    @functools.wraps(call)
    def again(*args: P.args, **options: P.kwargs) -> R:
        for _ in range(DEADLOCK_TRIES - 1):
            try:
                return call(*args, **options)
            except UnavailableError as error:
                if not _is_deadlock(error.__cause__):
                    raise
            time.sleep(random.uniform(DEADLOCK_PAUSE / 2, DEADLOCK_PAUSE))  # noqa: S311 - spreads load, no secret
        return call(*args, **options)

    return again


def _is_deadlock(error: BaseException | None) -> bool:
    original: Any = getattr(error, "orig", None)
    # Some drivers of MySQL give an error number, some an SQLSTATE too: 40001, which other failures share.
    codes = (getattr(original, "sqlstate", None), *getattr(original, "args", ())[:1])
    return any(code in DEADLOCK for code in codes)


def _is_missing_table(error: exc.DBAPIError) -> bool:
    """True if an error says that a table or column is not there, which waiting will not mend."""
    text = str(error.orig).lower()
    return any(sign in text for sign in MISSING_TABLE) or getattr(error.orig, "sqlstate", "") in (
        "42P01",
        "42703",
    )


def safe_url(url: URL | str) -> str:
    """A URL for messages: without its password and without its query, which may hold one too."""
    parsed = make_url(url)
    return parsed.set(query={}).render_as_string(hide_password=True)


def _reason(error: exc.SQLAlchemyError) -> str:
    """A driver's reason in one line, without the statement and its parameters."""
    text = str(getattr(error, "orig", None) or error).strip()
    return redact(text.splitlines()[0].rstrip(".")) if text else type(error).__name__


def require_shareable(engine: Engine) -> None:
    """Raise UsageError for an in-memory SQLite database, which no other process could see."""
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        raise UsageError(
            "Workers need a database that several processes can open; sqlite:// lives in one process only, "
            "so write sqlite:///agentexec.db."
        )
