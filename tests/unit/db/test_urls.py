"""Database URLs."""

from __future__ import annotations

import pytest

from agentexec.db.urls import safe_url, sync_url
from agentexec.errors import UsageError


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://host/name", "postgresql+psycopg"),
        ("postgres://host/name", "postgresql+psycopg"),
        ("postgresql+asyncpg://host/name", "postgresql+psycopg"),
        ("postgresql+pg8000://host/name", "postgresql+pg8000"),
        ("mariadb://host/name", "mariadb+pymysql"),
        ("mysql+asyncmy://host/name", "mysql+pymysql"),
        ("sqlite+aiosqlite:///file.db", "sqlite"),
    ],
)
def test_a_url_gets_a_synchronous_driver(given: str, driver: str) -> None:
    assert sync_url(given).drivername == driver


def test_a_malformed_url_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read; write it like"):
        sync_url("not a url")


def test_a_url_in_a_message_shows_no_password_and_no_query() -> None:
    shown = safe_url("postgresql://me:hunter2@host/name?password=hunter2")
    assert shown == "postgresql://me:***@host/name"
