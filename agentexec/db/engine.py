"""Engines of the database of the record."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event, exc
from sqlalchemy.engine.url import URL

from agentexec.db.clock import follow_server
from agentexec.db.libpq import has_news
from agentexec.db.lock_limits import enable_session_limits
from agentexec.db.own_connection import add_own_connection
from agentexec.db.pooler import adapt_async_to_pooler, adapt_to_pooler
from agentexec.db.pymysql_connections import CONNECT_SECONDS, connect_by_pymysql
from agentexec.db.resets import reset_by_need
from agentexec.db.round_trips import can_batch
from agentexec.db.sqlite import tune_sqlite, watch_write_lock
from agentexec.db.urls import is_in_memory, safe_url, sqlite_file, sync_url
from agentexec.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
"""Extras of agentexec that install a database's driver."""

PING_AFTER = 1.0
"""Seconds without use after which a connection is checked before its next use: no database restarts faster."""

LOOK_UNTIL = 30
"""Seconds without use up to which a look at the socket of a connection to PostgreSQL is enough: a server that ends its sessions
says so, and one that is gone answers no keep-alives."""


_POSTGRES_DEFAULTS = {
    "connect_timeout": 10,
    "fallback_application_name": "agentexec",
    # A host that has vanished answers nothing: without these, a statement would wait for it for a quarter of an hour.
    "keepalives_idle": LOOK_UNTIL,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Parameters of connections to PostgreSQL that its URL does not set: seconds, and milliseconds for the last."""


def open_engine(url: str | URL) -> Engine:
    """Open an engine for a URL, with the pool and timeouts that workers need.

    Raises UsageError for a malformed URL, an unknown database, or a driver that is not installed.
    """
    parsed = sync_url(url)
    dialect = parsed.get_backend_name() if parsed.drivername else ""
    try:
        engine = create_engine(parsed, **_options(parsed, dialect))
    except exc.NoSuchModuleError:
        raise UsageError(
            f"There is no SQLAlchemy dialect for {parsed.drivername}; use PostgreSQL, MySQL or SQLite."
        ) from None
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(dialect)
        advice = f"install agentexec[{extra}]" if extra else f"install {error.name}"
        raise UsageError(f"The database driver {error.name} is not installed; {advice}.") from None
    except (ValueError, exc.ArgumentError) as error:
        raise UsageError(
            f"The database URL {safe_url(parsed)} has a parameter with a wrong value ({', '.join(parsed.query)}): {error}; correct it."
        ) from None
    if dialect in ("mysql", "mariadb"):
        reset_by_need(engine)
    if dialect != "sqlite":
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", functools.partial(_ping_unused, engine.dialect))
        enable_session_limits(engine)
    prepare_engine(engine)
    return engine


def _options(url: URL, dialect: str) -> dict[str, Any]:
    # A statement's parameters are users' data: no error and no log may quote them.
    options: dict[str, Any] = {"hide_parameters": True}
    if dialect == "sqlite":
        file = sqlite_file(url)
        # The options of SQLite's own URLs may forbid to create the file.
        if file is not None and not (url.database or "").startswith("file:"):
            # Not by the event `do_connect`, with which SQLAlchemy looks for listeners at each statement.
            options["connect_args"] = {"factory": functools.partial(_connect_private, file)}
        if file is not None:
            # The connection that was used last still knows the pages that it has read, unless another one has written.
            options["pool_use_lifo"] = True
        return options
    options |= {"pool_size": 10, "max_overflow": 20, "pool_recycle": 1800}
    if dialect == "postgresql":
        options["connect_args"] = {
            name: value for name, value in _POSTGRES_DEFAULTS.items() if name not in url.query
        }
    if dialect in ("mysql", "mariadb"):
        if url.get_driver_name() == "pymysql":
            options["creator"] = functools.partial(connect_by_pymysql, url)
        else:
            options["connect_args"] = (
                {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
            )
        # PostgreSQL's default. MySQL's own level also locks the gaps between rows, over which claims deadlock.
        options["isolation_level"] = "READ COMMITTED"
        options["pool_reset_on_return"] = None
    return options


def _connect_private(file: Path, *arguments: Any, **options: Any) -> sqlite3.Connection:
    """Open a database file that only its owner may read: it holds contexts and results. Its journals follow suit."""
    with contextlib.suppress(OSError):  # SQLite reports what is wrong, in a moment
        os.close(os.open(file, os.O_CREAT | os.O_EXCL, 0o600))
    return sqlite3.Connection(*arguments, **options)


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_unused(dialect: Dialect, connection: Any, record: Any, _proxy: Any) -> None:
    """Replace a connection that a restarted database has dropped before its use, not after an error.

    SQLAlchemy's `pool_pre_ping` asks at every use, which is one more round trip for each transaction.
    """
    unused = time.monotonic() - record.info.get("used", math.inf)
    if unused < PING_AFTER:
        return
    try:
        if (
            unused < LOOK_UNTIL
            and dialect.name == "postgresql"
            and can_batch(dialect)
            and not has_news(connection)
        ):
            return
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise exc.DisconnectionError from error


def prepare_engine(engine: Engine | AsyncEngine) -> Engine:
    """Return the synchronous engine to use for an engine that the user made, tuned for SQLite and for poolers.

    An AsyncEngine gets a synchronous twin on the same URL. A second call has no effect.
    """
    if not isinstance(engine, Engine):  # isinstance(engine, AsyncEngine) would need greenlet installed
        twin = open_engine(engine.url)
        adapt_async_to_pooler(engine.sync_engine, twin)
        return twin
    if engine.dialect.name == "sqlite" and not event.contains(engine, "connect", tune_sqlite):
        event.listen(engine, "connect", tune_sqlite)
        watch_write_lock(engine)
    adapt_to_pooler(engine)
    if engine.dialect.name == "postgresql" and can_batch(engine.dialect):
        add_own_connection(engine)
    follow_server(engine)
    return engine


def require_shareable(engine: Engine) -> None:
    """Raise UsageError for an in-memory SQLite database, which no other process can open."""
    if is_in_memory(engine.url):
        raise UsageError(
            f"Workers need a database that several processes can open; {safe_url(engine.url)} lives in one process only, so "
            "write sqlite:///agentexec.db."
        )


def server_name(connection: Connection) -> str:
    """Return the kind and version of a connection's server, such as "postgresql 16.2"."""
    version = ".".join(map(str, connection.dialect.server_version_info or ()))
    return f"{connection.dialect.name} {version}"
