"""PostgreSQL as the queue: the steps of a plain task take one round trip each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.stores import open_record_store
from agentexec.activity.mailbox import OutcomeQuery
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.engine import open_engine
from agentexec.db.own_connection import own_connection
from agentexec.state import sql_backend
from agentexec.state.messages import DONE, parse_messages
from agentexec.state.sql_backend.polled_wakeup import make_wakeup
from agentexec.task import Entry, Lease, Priority, Status
from tests.stores import new_task
from tests.unit.worker.test_cost import counting_calls
from tests.waiting import wait_until

QUEUE = "round-trips"

HIGHEST_NUMBER_OF_CALLS = 760
"""Calls for a task that is accepted, claimed, started, ended and told. On Python 3.11 there are 653."""

Trips = Callable[[Callable[[], object]], int]


@pytest.fixture
def engine(postgres_tables: str) -> Iterator[Engine]:
    engine = open_engine(postgres_tables)
    yield engine
    engine.dispose()


@pytest.fixture
def backend(engine: Engine) -> Iterator[sql_backend.SqlBackend]:
    backend = sql_backend.create(Settings(), engine)
    claim(backend)  # starts the thread that listens
    yield backend
    backend.close()


@pytest.fixture
def trips(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Trips:
    """A function that counts what may be a round trip: uses of a connection, and statements outside of a pipeline."""
    seen: list[str] = []
    event.listen(engine, "checkout", lambda *_: seen.append("use"))
    own = own_connection(engine)
    assert own is not None
    run = own._run
    monkeypatch.setattr(
        own, "_run", lambda *arguments: (seen.append("use beside the pool"), run(*arguments))[1]
    )
    event.listen(engine, "before_cursor_execute", lambda *_: seen.append("statement"))

    def count(call: Callable[[], object]) -> int:
        seen.clear()
        call()
        return len(seen)

    return count


def entry(priority: Priority = Priority.LOW) -> Entry:
    return Entry(uuid.uuid4(), priority)


def claim(backend: sql_backend.SqlBackend, limit: int = 10, low_quota: int = 1) -> list[Lease]:
    return backend.claim(QUEUE, "worker", limit=limit, low_quota=low_quota, lease_seconds=30).leases


def test_a_claim_is_one_round_trip(backend: sql_backend.SqlBackend, trips: Trips) -> None:
    backend.push(QUEUE, [entry(), entry(Priority.HIGH), entry()])
    leases: list[Lease] = []
    assert trips(lambda: leases.extend(claim(backend))) == 1
    assert len(leases) == 3
    assert trips(lambda: leases.extend(claim(backend))) == 1
    assert len(leases) == 3


def test_a_claim_keeps_the_share_of_low_priority(backend: sql_backend.SqlBackend) -> None:
    high, low = [entry(Priority.HIGH) for _ in range(5)], [entry() for _ in range(5)]
    backend.push(QUEUE, [*high, *low])
    found = {lease.agent_id for lease in claim(backend, limit=4, low_quota=1)}
    assert found == {low[0].agent_id, *(task.agent_id for task in high[:3])}
    assert len(claim(backend, limit=10, low_quota=0)) == 6


def test_a_message_to_who_waits_is_one_round_trip(backend: sql_backend.SqlBackend, trips: Trips) -> None:
    task = uuid.uuid4()
    backend.watch(QUEUE, [task], "mailbox")
    received: list[str] = []
    assert trips(lambda: received.extend(backend.receive("mailbox", 0))) == 1
    assert trips(lambda: backend.notify_done(QUEUE, [task, uuid.uuid4()])) == 1
    assert trips(lambda: received.extend(backend.receive("mailbox", 0))) == 1
    assert parse_messages(received, DONE) == [task]


def test_tasks_are_accepted_with_their_queue_entries_in_one_round_trip(
    engine: Engine, backend: sql_backend.SqlBackend, trips: Trips
) -> None:
    tasks = [new_task(number, queue=QUEUE, metadata={"n": number}) for number in range(3)]
    entries = [Entry(task.agent_id, Priority.HIGH) for task in tasks]
    store = open_record_store(engine)
    pushed = backend.push_statement(QUEUE, entries)
    workers = make_wakeup(engine)  # of another process
    mark = workers.mark()
    assert trips(lambda: store.insert(tasks, utc_now(), push=lambda _: None, push_statement=pushed)) == 1
    wait_until(lambda: workers.mark() != mark)
    workers.close()
    assert [lease.agent_id for lease in claim(backend)] == [task.agent_id for task in tasks]


def test_an_outcome_is_read_in_one_round_trip(engine: Engine, trips: Trips) -> None:
    store, task = open_record_store(engine), new_task(1, queue=QUEUE)
    ending = Ending(Lease(task.agent_id, 1), Status.COMPLETE, "Done.", result="1")
    store.insert([task], utc_now(), push=lambda _: None)
    store.start_fresh([ending.lease], StartTerms(utc_now(), "Started.", max_crashes=3))
    store.record([], [ending], now=utc_now(), result_ttl=60, acknowledge=None)
    query, rows = OutcomeQuery(engine), []
    assert trips(lambda: rows.extend(query.read([task.agent_id, uuid.uuid4()]))) == 1
    [row] = rows
    assert (row.agent_id, row.queue, row.attempt, row.error) == (task.agent_id, QUEUE, 1, None)
    assert (row.status, row.value) == (Status.COMPLETE, "1")
    assert row.finished_at.tzinfo is not None


def test_steps_of_a_plain_task_make_few_calls(engine: Engine, backend: sql_backend.SqlBackend) -> None:
    """Calls of Python functions, whose number does not depend on the machine or its load."""
    store = open_record_store(engine)

    def run(number: int) -> int:
        task = new_task(number, queue=QUEUE)
        pushed = backend.push_statement(QUEUE, [Entry(task.agent_id)])
        ending = Ending(Lease(task.agent_id, 1), Status.COMPLETE, "Done.", result="1")
        options: dict[str, Any] = {"now": utc_now(), "queue_table": backend.queue_table, "result_ttl": 60}
        steps: list[Callable[[], object]] = [
            lambda: store.insert([task], utc_now(), push=lambda _: None, push_statement=pushed),
            lambda: claim(backend),
            lambda: store.start_fresh([ending.lease], StartTerms(utc_now(), "Started.", max_crashes=3)),
            lambda: store.record([], [ending], acknowledge=lambda *_: None, **options),
            lambda: backend.notify_done(QUEUE, [task.agent_id]),
        ]
        with counting_calls() as calls:
            for step in steps:
                step()
        return calls.number

    run(1)
    run(2)  # now the server has prepared every statement
    assert run(3) <= HIGHEST_NUMBER_OF_CALLS
