"""Database URLs."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize("url", ["not a url", "sqlite:/file.db", "postgresql://host:port/name", ""])
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be read; write it like"):
        sync_url(url)


@pytest.mark.parametrize("url", ["sqlite://file.db", "sqlite://file.db/", "sqlite+aiosqlite://user@file.db"])
def test_a_sqlite_url_with_too_few_slashes_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names a host, but SQLite's databases are files"):
        sync_url(url)


def test_a_sqlite_file_is_named_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert safe_url("sqlite:///file.db?timeout=3") == f"sqlite:///{tmp_path}/file.db"
    assert safe_url("sqlite:////srv/file.db") == "sqlite:////srv/file.db"
    assert safe_url("sqlite://") == "sqlite://"


def test_a_url_in_a_message_shows_no_password_and_no_query() -> None:
    shown = safe_url("postgresql://me:hunter2@host/name?password=hunter2")
    assert shown == "postgresql://me:***@host/name"


def test_an_unencoded_at_sign_shows_no_part_of_the_password() -> None:
    url = "postgresql://me:hun@ter2@host/name"
    with pytest.raises(UsageError, match="more than one @") as caught:
        sync_url(url)
    assert "ter2" not in f"{caught.value}{safe_url(url)}"


@pytest.mark.parametrize("url", ["mysql://me@host", "mariadb://me@host/"])
def test_a_url_of_mysql_without_a_database_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names no database"):
        sync_url(url)


def test_blanks_around_a_url_do_not_count() -> None:
    assert sync_url(" postgresql://host/name\n").database == "name"
