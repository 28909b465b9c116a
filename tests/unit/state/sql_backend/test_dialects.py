"""Each database has its fragments of SQL, and statements differ in nothing else."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import create_engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Dialect

from agentexec.db.engine import open_engine
from agentexec.state.sql_backend.dialects import SqlDialect, dialect_of
from agentexec.state.sql_backend.statements import QueueStatements

URLS = {
    "sqlite": "sqlite://",
    "postgresql": "postgresql://user@host/name",
    "mysql": "mysql://user@host/name",
    "mariadb": "mariadb://user@host/name",
}
COMPILERS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(),
    "postgresql": postgresql.dialect(),
    "mysql": mysql.dialect(),
    "mariadb": mysql.dialect(),
}


def dialect(name: str) -> SqlDialect:
    return dialect_of(open_engine(URLS[name]))


def compiled(name: str, statement: str) -> str:
    return str(getattr(QueueStatements(dialect(name)), statement).compile(dialect=COMPILERS[name]))


def test_sqlite_gets_the_local_time_as_a_parameter() -> None:
    before = time.time_ns() // 1000
    values = dialect("sqlite").params(queue="queue")
    assert values.keys() == {"queue", "now"}
    assert before <= values["now"] <= time.time_ns() // 1000


@pytest.mark.parametrize("name", ["postgresql", "mysql", "mariadb"])
def test_servers_use_their_own_clock(name: str) -> None:
    assert dialect(name).params(queue="queue") == {"queue": "queue"}
    assert ":now" not in dialect(name).now


@pytest.mark.parametrize("name", URLS)
def test_only_servers_skip_locked_rows(name: str) -> None:
    assert compiled(name, "ready").endswith("FOR UPDATE SKIP LOCKED") == (name != "sqlite")
    assert compiled(name, "lock").endswith("FOR UPDATE") == (name != "sqlite")


@pytest.mark.parametrize("name", URLS)
def test_an_insert_leaves_an_existing_task_as_it_is(name: str) -> None:
    insert = compiled(name, "insert")
    if name in ("mysql", "mariadb"):
        assert insert.startswith("INSERT IGNORE INTO") and "ON CONFLICT" not in insert
    else:
        assert insert.startswith("INSERT INTO") and insert.endswith("ON CONFLICT DO NOTHING")


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
def test_one_parameter_holds_any_number_of_ids(name: str) -> None:
    assert not dialect(name).ids.expanding
    assert "POSTCOMPILE" not in compiled(name, "renew")


def test_an_unknown_database_is_treated_like_postgresql_without_arrays() -> None:
    engine = create_engine("sqlite://")
    engine.dialect.name = "cockroachdb"
    other, known = dialect_of(engine), dialect("postgresql")
    assert (other.now, other.insert, other.on_conflict) == (known.now, known.insert, known.on_conflict)
    assert other.ids.expanding
