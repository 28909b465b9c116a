"""Database URLs: with the drivers that agentexec uses, and without secrets for messages."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.engine.url import URL

from agentexec.errors import UsageError

SYNC_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""Synchronous driver for each name of a database in a URL."""

PLACES = frozenset({"host", "port", "unix_socket", "service", "dbname"})
"""Parameters of a URL's query that name the server or the database."""


def sync_url(url: str | URL) -> URL:
    """Return the URL with the driver that agentexec uses for its database; raises UsageError for a malformed URL."""
    try:
        parsed = make_url(url.strip() if isinstance(url, str) else url)
    except (exc.ArgumentError, ValueError):  # a ValueError is about the port
        raise UsageError(
            "The database URL cannot be read; write it like postgresql://USER:PASSWORD@HOST/NAME or sqlite:///file.db."
        ) from None
    _check_parts(parsed)
    name, _, driver = parsed.drivername.partition("+")
    if not driver or driver in ("aiosqlite", "asyncpg", "psycopg_async", "aiomysql", "asyncmy"):
        return parsed.set(drivername=SYNC_DRIVERS.get(name, parsed.drivername))
    return parsed


def _check_parts(parsed: URL) -> None:
    """Raise UsageError for a URL whose parts are not what its writer meant."""
    if "@" in (parsed.host or ""):
        # What is before it is a part of the password, so the URL is not shown.
        raise UsageError(
            "The database URL has more than one @; in a user's name or password write %40 for @, and %2F for /."
        )
    name = parsed.get_backend_name() if parsed.drivername else ""
    if name == "sqlite" and (parsed.host or parsed.port or parsed.username):
        raise UsageError(
            f"The database URL {safe_url(parsed)} names a host, but SQLite's databases are files; write sqlite:///file.db "
            "for a file in the current folder, or sqlite:////folder/file.db."
        )
    if name in ("mysql", "mariadb") and not parsed.database:
        raise UsageError(
            f"The database URL {safe_url(parsed)} names no database; write {name}://USER@HOST/NAME."
        )


def safe_url(url: URL | str) -> str:
    """Return a URL for messages: without its password, and without its query, which may contain one too.

    The path of a SQLite file is absolute, so that the message tells which file it is. A query that names the server stays.
    """
    parsed = make_url(url)
    if "@" in (parsed.host or ""):
        parsed = parsed.set(host="***")  # an unencoded @ makes a part of the password look like the host
    parsed = parsed.set(query={name: value for name, value in parsed.query.items() if name in PLACES})
    if (path := sqlite_file(parsed)) is not None:
        parsed = parsed.set(database=str(path))
    return parsed.render_as_string(hide_password=True)


def is_in_memory(url: URL) -> bool:
    """Return True for a SQLite URL without a file, whose database only one process can open."""
    name = url.database or ":memory:"
    return url.get_backend_name() == "sqlite" and (
        name.startswith((":memory:", "file::memory:"))
        or "memory" in (url.query.get("mode"), *parse_qs(name.partition("?")[2]).get("mode", ()))
    )


def sqlite_file(url: URL) -> Path | None:
    """Return the absolute path of a SQLite URL's file, or None if the URL names no file."""
    if url.get_backend_name() != "sqlite" or url.host or not url.database or is_in_memory(url):
        return None
    # SQLite's own URLs: file:name.db, file:/folder/name.db, file:///folder/name.db, each perhaps with ?options.
    name = unquote(urlsplit(url.database).path) if url.database.startswith("file:") else url.database
    return Path(name).absolute() if name else None
