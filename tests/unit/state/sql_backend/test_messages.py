"""On SQLite those who wait for a task are told in the transaction that ends it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

import agentexec as ax
from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.db.transactions import writing
from agentexec.state import sql_backend
from agentexec.state.messages import DONE, parse_messages
from agentexec.task import Entry, Lease

QUEUE = "messages"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'agentexec.db'}")
    ax.Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def backend(engine: Engine) -> Iterator[sql_backend.SqlBackend]:
    backend = sql_backend.create(Settings(), engine)
    yield backend
    backend.close()


def claim(backend: sql_backend.SqlBackend) -> Lease:
    """Push a task that a mailbox watches, and claim it."""
    task = uuid.uuid4()
    backend.push(QUEUE, [Entry(task)])
    backend.watch(QUEUE, [task], "mailbox")
    [lease] = backend.claim(QUEUE, "worker", limit=1, low_quota=1, lease_seconds=30).leases
    return lease


def test_the_message_comes_once_with_the_commit(engine: Engine, backend: sql_backend.SqlBackend) -> None:
    lease = claim(backend)
    with writing(engine) as connection:
        backend.finish(QUEUE, [lease], transaction=connection)
    assert parse_messages(backend.receive("mailbox", 0), DONE) == [lease.agent_id]
    backend.notify_done(QUEUE, [lease.agent_id])
    assert backend.receive("mailbox", 0) == []


def test_a_transaction_that_fails_tells_nobody(engine: Engine, backend: sql_backend.SqlBackend) -> None:
    lease = claim(backend)
    with pytest.raises(ZeroDivisionError), writing(engine) as connection:
        backend.finish(QUEUE, [lease], transaction=connection)
        raise ZeroDivisionError
    assert backend.receive("mailbox", 0) == []
    with writing(engine) as connection:
        backend.finish(QUEUE, [lease], transaction=connection)
    backend.notify_done(QUEUE, [lease.agent_id])
    assert parse_messages(backend.receive("mailbox", 0), DONE) == [lease.agent_id]


def test_messages_are_read_while_another_transaction_writes(
    engine: Engine, backend: sql_backend.SqlBackend
) -> None:
    backend.send("mailbox", ["one"])
    with writing(engine):
        assert backend.receive("mailbox", 0) == ["one"]
    backend.send("mailbox", ["two"])
    assert backend.receive("mailbox", 0) == ["two"]
