"""Parameters of database URLs that drivers do not take: one sentence, and nothing is waited for."""

from __future__ import annotations

import socket

import pytest

from agentexec.db.engine import open_engine
from agentexec.db.errors import translating_db_errors
from agentexec.errors import UnavailableError, UsageError


def connect(url: str) -> None:
    engine = open_engine(url)
    with translating_db_errors(engine), engine.connect():
        pass


@pytest.mark.parametrize(
    ("start", "query"),
    [
        ("postgresql", "connect_timeout=soon"),
        ("postgresql", "sslmode=nonsense"),
        ("postgresql", "target_session_attrs=nonsense"),
        ("postgresql", "port=nonsense"),
        ("mysql", "connect_timeout=soon"),
        ("mysql", "nonsense=1"),
        ("mysql", "charset=nonsense"),
        ("mariadb", "ssl_ca=/nonexistent"),
    ],
)
def test_a_wrong_parameter_is_named_and_not_waited_for(start: str, query: str) -> None:
    with pytest.raises(UsageError, match=query.split("=")[0]) as caught:
        connect(f"{start}://me:hunter2@127.0.0.1:1/name?{query}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("start", ["postgresql", "mysql"])
def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(start: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnavailableError):
            connect(f"{start}://me@127.0.0.1:{port}/name?connect_timeout=1")
