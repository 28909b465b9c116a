"""Locks on the SQL backend: the transaction that ends a task lets the next one have its lock, where nobody else can write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, select

import agentexec as ax
from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.db.transactions import writing
from agentexec.state import sql_backend
from agentexec.state.sql_models import QueueEntry, QueueMember
from agentexec.task import LOCK, Entry, Lease, new_agent_id
from agentexec.testing.backend_suite.operations import claim

QUEUE = "locked"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'locked.db'}")
    ax.Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def backend(engine: Engine) -> sql_backend.SqlBackend:
    backend = sql_backend.create(Settings(), engine)
    backend.mark_intact(QUEUE)  # before that, no lock is given away
    return backend


def push_locked(backend: sql_backend.SqlBackend, key: str, number: int) -> None:
    backend.push(QUEUE, [Entry(new_agent_id(), groups=(LOCK + key,)) for _ in range(number)])


def finish_in_transaction(engine: Engine, backend: sql_backend.SqlBackend, leases: list[Lease]) -> None:
    with writing(engine) as connection:
        backend.finish(QUEUE, leases, transaction=connection)


def test_the_lock_goes_on_in_the_transaction_that_ends_the_task(
    engine: Engine, backend: sql_backend.SqlBackend
) -> None:
    push_locked(backend, "a", 3)
    for _ in range(3):
        [lease] = claim(backend, QUEUE)
        assert not claim(backend, QUEUE)
        finish_in_transaction(engine, backend, [lease])
        assert backend.unfinished([lease]) == []
    assert not claim(backend, QUEUE)


def test_a_transaction_that_is_rolled_back_keeps_the_lock(
    engine: Engine, backend: sql_backend.SqlBackend
) -> None:
    push_locked(backend, "a", 2)
    [lease] = claim(backend, QUEUE)

    def end_and_fail() -> None:
        with writing(engine) as connection:
            backend.finish(QUEUE, [lease], transaction=connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        end_and_fail()
    assert not claim(backend, QUEUE)
    finish_in_transaction(engine, backend, [lease])
    assert len(claim(backend, QUEUE)) == 1


def test_tasks_with_many_locks_take_no_more_statements_than_one(
    engine: Engine, backend: sql_backend.SqlBackend
) -> None:
    statements: list[str] = []

    def note(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    counts: list[int] = []
    for number in (1, 50):
        for key in range(number):
            push_locked(backend, f"{number}-{key}", 1)
        statements.clear()
        leases = claim(backend, QUEUE, limit=100)
        finish_in_transaction(engine, backend, leases)
        assert len(leases) == number
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_a_task_that_the_index_has_lost_goes_back_to_its_very_place(
    engine: Engine, backend: sql_backend.SqlBackend
) -> None:
    """However long its insert takes: others may have been accepted in the microsecond after it."""
    accepted = 1_700_000_000_000_001
    backend.push(QUEUE, [Entry(new_agent_id(), groups=(LOCK + "a",), since=accepted / 1_000_000)])
    with engine.connect() as connection:
        assert connection.scalars(select(QueueEntry.at)).all() == [accepted]
        assert connection.scalars(select(QueueMember.place)).all() == [accepted]
