"""Database URLs: with the drivers that agentexec uses, and without secrets for messages."""

from __future__ import annotations

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


def sync_url(url: str | URL) -> URL:
    """Return the URL with the driver that agentexec uses for its database; raises UsageError for a malformed URL."""
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


def safe_url(url: URL | str) -> str:
    """Return a URL for messages: without its password, and without its query, which may contain one too."""
    parsed = make_url(url)
    return parsed.set(query={}).render_as_string(hide_password=True)
