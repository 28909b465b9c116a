"""The query of a PostgreSQL URL: psycopg's parameters, asyncpg's, and those that nobody knows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event

from agentexec.db.engine import open_engine, prepare_engine
from agentexec.db.psycopg_parameters import read_parameters
from agentexec.errors import UsageError


def read(query: dict[str, Any]) -> dict[str, Any]:
    read_parameters(query, psycopg)
    return query


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ({"prepare_threshold": "0"}, {"prepare_threshold": 0}),
        ({"prepare_threshold": "12"}, {"prepare_threshold": 12}),
        ({"prepare_threshold": "None"}, {"prepare_threshold": None}),
        ({"prepare_threshold": ""}, {"prepare_threshold": None}),
        ({"prepare_threshold": 3, "row_factory": dict}, {"prepare_threshold": 3, "row_factory": dict}),
        ({"sslmode": "require", "keepalives": "1"}, {"sslmode": "require", "keepalives": "1"}),
        ({"statement_cache_size": "0"}, {"prepare_threshold": None}),
        ({"prepared_statement_cache_size": "0", "prepare_threshold": "4"}, {"prepare_threshold": 4}),
        ({"prepared_statement_cache_size": "100", "command_timeout": "60"}, {}),
        ({"ssl": "verify-full", "timeout": "2.5"}, {"sslmode": "verify-full", "connect_timeout": 3}),
        ({"ssl": "true"}, {"sslmode": "require"}),
        ({"ssl": "false", "sslmode": "prefer"}, {"sslmode": "prefer"}),
    ],
)
def test_parameters_reach_the_driver_as_it_understands_them(
    given: dict[str, Any], passed: dict[str, Any]
) -> None:
    assert read(given) == passed


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (
            {"prepare_threshold": "soon"},
            "prepare_threshold in the database URL is 'soon'; set it to a number",
        ),
        ({"prepare_threshold": "-1"}, "set it to a number, or to none"),
        ({"timeout": "nan"}, "timeout in the database URL is 'nan'; set it to a number of seconds"),
        ({"pgbouncer": "maybe"}, "pgbouncer in the database URL is 'maybe'; set it to true"),
        ({"autocommit": "true"}, "The database URL cannot set autocommit; remove it"),
        ({"connection_limit": "1"}, "does not know the parameter connection_limit of the database URL"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(query: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read(query)


@pytest.mark.parametrize(
    ("given", "stated"),
    [({"pgbouncer": "true"}, True), ({"pgbouncer": "0"}, False), ({}, None)],
)
def test_the_url_may_say_that_a_pooler_is_there(given: dict[str, Any], stated: bool | None) -> None:
    assert read_parameters(given, psycopg) is stated
    assert given == {}


def passed_by(engine: Engine) -> dict[str, Any]:
    """Return what an engine passes to its driver; nothing is connected to."""
    passed: dict[str, Any] = {}

    class NoServerError(Exception):
        """Ends the attempt to connect."""

    @event.listens_for(engine, "do_connect")
    def note(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        passed.update(parameters)
        raise NoServerError

    with pytest.raises(NoServerError):
        engine.connect()
    return passed


@pytest.mark.parametrize("by_application", [False, True])
def test_every_engine_reads_its_url_so(by_application: bool) -> None:
    url = "postgresql+psycopg://user@host/name?prepare_threshold=7&pgbouncer=true&ssl=require"
    engine = (
        prepare_engine(create_engine(url))
        if by_application
        else open_engine(url.replace("psycopg", "asyncpg"))
    )
    passed = passed_by(engine)
    assert passed["prepare_threshold"] == 7
    assert passed["sslmode"] == "require"
    assert "pgbouncer" not in passed
    assert "ssl" not in passed


def test_a_host_that_has_vanished_is_noticed_within_a_minute_unless_the_url_says_otherwise() -> None:
    given = passed_by(open_engine("postgresql://u@host/name"))
    idle = given["keepalives_idle"] + given["keepalives_interval"] * given["keepalives_count"]
    assert (idle, given["tcp_user_timeout"], given["connect_timeout"]) == (60, 30_000, 10)
    query = "tcp_user_timeout=5000&keepalives_idle=5&connect_timeout=2&application_name=shop"
    own = passed_by(open_engine(f"postgresql://u@host/name?{query}"))
    chosen = [int(own[name]) for name in ("tcp_user_timeout", "keepalives_idle", "connect_timeout")]
    assert chosen == [5000, 5, 2]
    assert own["application_name"] == "shop"
