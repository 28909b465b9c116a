"""Group commit of the journal: many tasks' facts share a transaction, and each keeps its own errors."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import event, select, update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.errors import JournalConflictError, LeaseLostError, UnavailableError
from agentexec.journal.facts import Fact, FactKind, Usage
from agentexec.journal.recorder import Recorder
from agentexec.journal.scopes import current_scope
from agentexec.journal.store import Append, JournalStore
from agentexec.journal.stores import journal_store
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from tests.attempts import ReplayableTask
from tests.waiting import patient

USAGE = Usage("small", 1, 100, 40, 20)


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of facts of each transaction."""
    sizes: list[int] = []
    inner = JournalStore.append_together

    def counted(store: JournalStore, appends: Sequence[Append]) -> frozenset[int]:
        sizes.append(len(appends))
        return inner(store, appends)

    monkeypatch.setattr(JournalStore, "append_together", counted)
    return sizes


def recorder() -> Recorder:
    scope = current_scope()
    assert scope is not None
    return scope.recorder


async def record(path: str = "run", kind: FactKind = FactKind.MODEL, usage: Usage | None = USAGE) -> None:
    await recorder().record(path, kind, "hash", "{}", usage)


async def together(
    tasks: Sequence[ReplayableTask], handler: Callable[[], Awaitable[Any]]
) -> list[BaseException | None]:
    return await asyncio.gather(*(task.attempt(handler) for task in tasks), return_exceptions=True)


async def test_facts_of_many_tasks_share_transactions(batches: list[int]) -> None:
    tasks = [ReplayableTask() for _ in range(20)]

    async def handler() -> None:
        for number in range(3):
            await record(f"run/{number}")

    assert await together(tasks, handler) == [None] * 20
    assert sum(batches) == 60
    assert len(batches) < 30
    for task in tasks:
        assert [path for path, _, _ in task.journal()] == ["run/0", "run/1", "run/2"]
        assert task.detail().usage.requests == 3


async def test_one_task_at_a_time_writes_each_fact_at_once(batches: list[int]) -> None:
    task = ReplayableTask()

    async def handler() -> None:
        await record("run/0")
        await record("run/1")

    await task.attempt(handler)
    assert batches == [1, 1]


async def test_a_run_that_records_several_things_at_once_adds_up_its_usage() -> None:
    task = ReplayableTask()

    async def handler() -> None:
        await asyncio.gather(
            *(record(f"run/{number}") for number in range(5)), record("call", FactKind.INTENT, None)
        )

    await task.attempt(handler)
    assert len(task.journal()) == 6
    assert task.detail().usage.requests == 5


async def test_a_lost_task_among_others_ends_alone() -> None:
    tasks = [ReplayableTask() for _ in range(3)]

    async def handler() -> None:
        if recorder().lease.agent_id == tasks[1].agent_id:
            with RUNTIME.engine.begin() as connection:
                connection.execute(
                    update(Activity).where(Activity.agent_id == tasks[1].agent_id).values(epoch=9)
                )
        await record()

    first, lost, last = await together(tasks, handler)
    assert (first, last) == (None, None)
    assert isinstance(lost, LeaseLostError)
    assert [len(task.journal()) for task in tasks] == [1, 0, 1]


async def test_a_conflict_ends_only_its_own_attempt() -> None:
    tasks = [ReplayableTask() for _ in range(3)]

    async def handler() -> None:
        lease = recorder().lease
        if lease.agent_id == tasks[1].agent_id:
            other = Fact("run", 0, FactKind.MODEL, "hash", '"other"')
            journal_store().append(lease, other, None, tasks[1].detail().updated_at)
        await record()

    first, conflict, last = await together(tasks, handler)
    assert (first, last) == (None, None)
    assert isinstance(conflict, JournalConflictError)


async def test_facts_are_recorded_one_by_one_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [ReplayableTask() for _ in range(3)]

    def away(*_: object, **__: object) -> frozenset[int]:
        raise UnavailableError("The database is away.")

    monkeypatch.setattr(JournalStore, "append_together", away)
    assert await together(tasks, record) == [None] * 3
    assert [len(task.journal()) for task in tasks] == [1, 1, 1]


async def test_a_fact_that_the_database_refuses_ends_only_its_own_attempt() -> None:
    tasks = [ReplayableTask() for _ in range(3)]

    async def handler() -> None:
        refused = recorder().lease.agent_id == tasks[1].agent_id
        value = '"\ud800"' if refused else "{}"  # half of a pair, which no database stores
        await recorder().record("run", FactKind.MODEL, "hash", value, USAGE)

    first, refused, last = await together(tasks, handler)
    assert (first, last) == (None, None)
    assert isinstance(refused, Exception)
    assert [len(task.journal()) for task in tasks] == [1, 0, 1]


async def test_facts_whose_commit_was_not_confirmed_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [ReplayableTask() for _ in range(3)]
    inner = JournalStore.append_together

    def unconfirmed(store: JournalStore, appends: Sequence[Append]) -> frozenset[int]:
        inner(store, appends)
        raise UnavailableError("The connection was lost after the commit.")

    monkeypatch.setattr(JournalStore, "append_together", unconfirmed)
    assert await together(tasks, record) == [None] * 3
    for task in tasks:
        assert len(task.journal()) == 1
        assert task.detail().usage.requests == 1


async def test_facts_are_recorded_one_by_one_if_the_runtime_is_closed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = [ReplayableTask() for _ in range(3)]

    def closed(_call: object) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(RUNTIME, "submit", closed)
        assert await together(tasks, record) == [None] * 3
    assert await together(tasks, functools.partial(record, "run/2")) == [None] * 3
    assert [len(task.journal()) for task in tasks] == [2] * 3


async def test_an_error_after_a_fact_was_recorded_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = [ReplayableTask() for _ in range(3)]
    inner = Recorder.add_fact

    def failing(self: Recorder, fact: Fact) -> None:
        if self.lease.agent_id == tasks[0].agent_id:
            raise ValueError("A meter of the user's failed.")
        inner(self, fact)

    monkeypatch.setattr(Recorder, "add_fact", failing)
    first, *others = await asyncio.wait_for(together(tasks, record), patient(20))
    assert isinstance(first, ValueError)
    assert others == [None, None]


async def test_a_task_whose_row_is_locked_keeps_no_other_waiting() -> None:
    if RUNTIME.engine.dialect.name == "sqlite":
        return  # one transaction at a time writes there
    locked, other = ReplayableTask(), ReplayableTask()
    tried = asyncio.Event()

    async def try_first() -> None:
        tried.set()
        await record()

    locked.take_over()
    with RUNTIME.engine.begin() as holder:
        holder.execute(select(Activity.epoch).where(Activity.agent_id == locked.agent_id).with_for_update())
        waiting = asyncio.create_task(locked.run_at_epoch(try_first, 1))
        await tried.wait()
        await other.attempt(record)
        assert len(other.journal()) == 1
        assert not waiting.done()
    await waiting
    assert len(locked.journal()) == 1


@pytest.mark.parametrize("alone", [False, True])
async def test_a_fact_of_a_canceled_caller_is_recorded_and_remembered(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, begun, go_on = ReplayableTask(), threading.Event(), threading.Event()
    inner = JournalStore.append_together

    def slow(store: JournalStore, appends: Sequence[Append]) -> frozenset[int]:
        begun.set()
        assert go_on.wait(20)
        return frozenset() if alone else inner(store, appends)

    monkeypatch.setattr(JournalStore, "append_together", slow)

    async def handler() -> None:
        writing = asyncio.create_task(record())
        assert await asyncio.to_thread(begun.wait, 20)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert not recorder().facts("run")
        go_on.set()
        while not recorder().facts("run"):  # noqa: ASYNC110 - nothing tells when it is remembered
            await asyncio.sleep(0.005)

    await task.attempt(handler)
    assert task.journal() == [("run", 0, "model")]


async def test_event_loops_of_several_threads_share_the_queue() -> None:
    tasks = [ReplayableTask() for _ in range(6)]

    def in_own_loop(task: ReplayableTask) -> None:
        asyncio.run(task.attempt(record))

    await asyncio.gather(
        *(asyncio.to_thread(in_own_loop, task) for task in tasks[:3]), together(tasks[3:], record)
    )
    assert [len(task.journal()) for task in tasks] == [1] * 6


async def test_a_loop_that_ends_with_a_fact_in_its_hands_keeps_nobody_else_waiting() -> None:
    left, task = ReplayableTask(), ReplayableTask()
    left.take_over()

    def leave() -> None:
        loop = asyncio.new_event_loop()

        async def begin() -> None:
            started = asyncio.create_task(left.run_at_epoch(record, 1))
            await asyncio.sleep(0)
            started.cancel()

        loop.run_until_complete(begin())
        loop.close()

    await asyncio.to_thread(leave)
    await asyncio.wait_for(task.attempt(record), 20)
    assert len(task.journal()) == 1


async def test_no_statement_of_a_shared_transaction_is_repeated_for_each_fact() -> None:
    tasks = [ReplayableTask() for _ in range(10)]
    leases = [Lease(task.agent_id, 1) for task in tasks]
    for task in tasks:
        task.take_over()
    statements: list[str] = []
    event.listen(RUNTIME.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    now = tasks[0].detail().updated_at
    statements.clear()
    facts = [Append(lease, Fact("run", 0, FactKind.MODEL, "hash", "{}"), USAGE, now) for lease in leases]
    assert len(journal_store().append_together(facts)) == 10
    assert len(statements) <= 4
