"""Calls inside a task wait out an outage, and take effect once, whether or not the last commit was confirmed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import Float, LargeBinary, Uuid, event, exc, select, text, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.stores import record_store
from agentexec.activity.models import Activity
from agentexec.db import transactions
from agentexec.db.clock import utc_now
from agentexec.db.columns import UtcDateTime
from agentexec.journal.approvals import ask
from agentexec.journal.questions import Question
from agentexec.outage import Patience, current_patience
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from tests.attempts import ReplayableTask


class Runner(ax.BaseAgentRunner):
    async def run(self, agent: Any, input: Any) -> None: ...


class World:
    """A running task, and what its calls are about: tasks that are queued, failed and asking, an activity, a tracker."""

    def __init__(self) -> None:
        self.task = ReplayableTask()
        self.task.take_over()
        self.queued = ax.enqueue_sync("queued")
        self.failed = ReplayableTask()
        self.activity = ax.activity.create("activity")
        self.asking = ReplayableTask()
        self.asking.take_over()
        question = Question("call", 0, "approval", "tool", "{}")
        ask(RUNTIME.engine, Lease(self.asking.agent_id, 1), [question], utc_now())
        ax.Tracker("full").incr()
        ax.Tracker("full").on_complete("done")
        ax.Tracker("empty").incr()
        ax.Tracker("empty").decr()
        self.failing = ax.enqueue_sync("failing")
        fail(self.failing.agent_id)

    @property
    def runner(self) -> Runner:
        return Runner(self.task.agent_id)

    async def run(self, call: Callable[[World], Any]) -> Any:
        """Make a call inside the task, in its first epoch, and return the answer in a form that can be compared."""

        async def handler() -> Any:
            answer = call(self)
            return await answer if isinstance(answer, Awaitable) else answer

        answer = await self.task.run_at_epoch(handler, 1)
        return (
            [type(item) for item in answer]
            if isinstance(answer, list)
            else type(answer)
            if isinstance(answer, UUID | ax.Task)
            else answer
        )


def fail(agent_id: UUID) -> None:
    """End a queued task in ERROR, as a worker does."""
    store = record_store()
    terms = StartTerms(utc_now(), "", max_crashes=3)
    admitted = store.admit([Lease(agent_id, 1)], terms, suspect_running=False)
    assert admitted.started
    store.record(
        [], [Ending(Lease(agent_id, 1), ax.Status.ERROR, "No.", error="No.")], now=utc_now(), result_ttl=1
    )


CALLS: dict[str, Callable[[World], Any]] = {
    "enqueue": lambda world: ax.enqueue("child", {"a": 1}),
    "enqueue_sync": lambda world: ax.enqueue_sync("child", {"a": 1}),
    "enqueue with a key": lambda world: ax.enqueue("child", {"a": 1}, idempotency_key="key"),
    "enqueue detached": lambda world: ax.enqueue("child", {"a": 1}, detached=True),
    "enqueue_many": lambda world: ax.enqueue_many("child", [{"a": 1}, {"a": 1}, {"a": 2}]),
    "enqueue_many_sync": lambda world: ax.enqueue_many_sync("child", [{"a": 1}, {"a": 1}]),
    "Tracker.incr": lambda world: ax.Tracker("full").incr(),
    "Tracker.decr to 0": lambda world: ax.Tracker("full").decr(),
    "Tracker.incr of a new one": lambda world: ax.Tracker("new").incr(5),
    "Tracker.on_complete": lambda world: ax.Tracker("empty").on_complete("done"),
    "cancel": lambda world: ax.cancel(world.queued),
    "cancel_sync": lambda world: ax.cancel_sync(world.queued),
    "retry": lambda world: ax.retry(world.failing),
    "retry_sync": lambda world: ax.retry_sync(world.failing),
    "retry_failed": lambda world: ax.retry_failed(),
    "retry_failed_sync": lambda world: ax.retry_failed_sync(),
    "approve": lambda world: ax.approve(world.asking.agent_id, "call"),
    "reject_sync": lambda world: ax.reject_sync(world.asking.agent_id, "call", message="No."),
    "send_event": lambda world: ax.send_event("paid", "1", {"a": 1}),
    "send_event_sync": lambda world: ax.send_event_sync("paid"),
    "activity.create": lambda world: ax.activity.create("by hand"),
    "activity.update": lambda world: ax.activity.update(world.activity, "Half way.", 50),
    "activity.complete": lambda world: ax.activity.complete(world.activity),
    "activity.error": lambda world: ax.activity.error(world.activity, "No."),
    "step": lambda world: world.runner.step("one", lambda: 1),
}


class LostCommits:
    """Loses the confirmation of one commit, as a server does that dies in that moment; counts the commits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.lose = 0
        dialect = RUNTIME.engine.dialect
        commit = dialect.do_commit

        def do_commit(connection: Any) -> None:
            writes = connection.in_transaction
            commit(connection)
            # Threads of the process read at moments of their own, and lose nothing.
            self.count += writes
            if writes and self.count == self.lose:
                raise sqlite3.OperationalError("the connection is gone")

        monkeypatch.setattr(dialect, "do_commit", do_commit)


@pytest.fixture
def new_world(sqlite_tables: str) -> Iterator[Callable[[], World]]:
    """Factory of worlds, each in a database of its own."""
    template = Path(sqlite_tables.removeprefix("sqlite:///"))
    numbers = iter(range(100))

    def make() -> World:
        copy = shutil.copy(template, template.with_name(f"{next(numbers)}.db"))
        ax.configure(database_url=f"sqlite:///{copy}")
        return World()

    yield make
    RUNTIME.close()


def record() -> dict[str, list[Any]]:
    """Return what is recorded, without ids and times."""
    contents: dict[str, list[Any]] = {}
    with RUNTIME.engine.connect() as connection:
        for name, table in ax.Base.metadata.tables.items():
            columns = [
                column
                for column in table.c
                if column.name not in ("id", "event_id", "at")
                and not isinstance(column.type, UtcDateTime | Uuid | Float | LargeBinary)
            ]
            contents[name] = sorted(map(repr, connection.execute(select(*columns)).all())) if columns else []
    return contents


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.thorough) if "_sync" in name else name for name in CALLS],
)
async def test_a_call_whose_commit_was_not_confirmed_takes_effect_once(
    name: str, new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    commits = LostCommits(monkeypatch)
    answer, expected = await world.run(CALLS[name]), record()
    number = commits.count
    assert number, "the call writes"
    for lost in range(1, number + 1):
        world = new_world()
        commits = LostCommits(monkeypatch)
        commits.lose = lost
        assert await world.run(CALLS[name]) == answer
        assert record() == expected
        assert commits.count >= lost


class Interrupted(sqlite3.OperationalError):
    """Error of a server that shuts down."""

    sqlstate = "57P01"


@pytest.mark.parametrize(
    "instant", ["statement", "statement of ours", "before the commit", "after the commit"]
)
async def test_a_transactional_call_that_an_outage_has_undone_is_made_again(
    instant: str, new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    with RUNTIME.engine.begin() as connection:
        connection.execute(text("CREATE TABLE payment (topic VARCHAR(50))"))
    # With a listener, every statement takes SQLAlchemy's way to the driver.
    event.listen(RUNTIME.engine, "before_cursor_execute", lambda *_: None)
    failures, calls, receipts = [True], [], []
    dialect = RUNTIME.engine.dialect
    execute, commit = dialect.do_execute, dialect.do_commit

    def do_execute(cursor: Any, statement: str, *arguments: Any) -> None:
        parts = {"statement": "payment", "statement of ours": "INSERT INTO agentexec_activity"}
        if receipts and parts.get(instant, "none") in statement and failures:
            failures.clear()
            raise Interrupted("terminating connection")
        execute(cursor, statement, *arguments)

    def do_commit(connection: Any) -> None:
        paid = (
            connection.execute("SELECT COUNT(*) FROM payment").fetchone() == (1,)
            and connection.in_transaction
        )
        if paid and instant == "before the commit" and failures:
            failures.clear()
            connection.rollback()
            raise Interrupted("terminating connection")
        commit(connection)
        if paid and instant == "after the commit" and failures:
            failures.clear()
            raise Interrupted("terminating connection")

    def pay(topic: str) -> int:
        calls.append(topic)
        count = ax.Tracker("full").incr()
        ax.enqueue_sync("child", {"of": topic})
        with ax.transaction() as db:
            receipts.append(topic)
            ax.activity.create("receipt", session=db)
            db.execute(text("INSERT INTO payment VALUES (:topic)"), {"topic": topic})
        return count

    monkeypatch.setattr(dialect, "do_execute", do_execute)
    monkeypatch.setattr(dialect, "do_commit", do_commit)
    step = await world.run(lambda world: world.runner.step("pay", pay, "pen", policy="transactional"))
    assert step == 2
    assert not failures
    assert len(calls) == (1 if instant == "after the commit" else 2)
    with RUNTIME.engine.connect() as connection:
        assert connection.scalars(text("SELECT topic FROM payment")).all() == ["pen"]
        children = connection.scalars(
            select(Activity.agent_id).where(Activity.parent_id == world.task.agent_id)
        ).all()
    assert len(children) == 1
    assert ax.Tracker("full").count == 2
    assert [kind for _, _, kind in world.task.journal()] == ["intent", "outcome"]


async def test_a_call_inside_a_transaction_of_sqlite_fails_rather_than_wait_for_it(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    monkeypatch.setattr("agentexec.db.sqlite.BUSY_TIMEOUT_MS", 50)

    def pay() -> None:
        with ax.transaction():
            ax.Tracker("full").incr()

    with pytest.raises(ax.UnavailableError, match="locked"):
        await world.run(lambda world: world.runner.step("pay", pay, policy="transactional"))


async def test_the_model_is_not_told_of_an_outage_that_has_undone_a_tool(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    with RUNTIME.engine.begin() as connection:
        connection.execute(text("CREATE TABLE payment (topic VARCHAR(50))"))
    failures = [True]
    execute = RUNTIME.engine.dialect.do_execute

    def do_execute(cursor: Any, statement: str, *arguments: Any) -> None:
        if "payment" in statement and failures:
            failures.clear()
            raise Interrupted("terminating connection")
        execute(cursor, statement, *arguments)

    monkeypatch.setattr(RUNTIME.engine.dialect, "do_execute", do_execute)

    @ax.tool_policy("transactional")
    @function_tool
    def buy(topic: str) -> str:
        with ax.transaction() as db:
            db.execute(text("INSERT INTO payment VALUES (:topic)"), {"topic": topic})
        return f"bought {topic}"

    turns = [[function_call("buy", {"topic": "pen"}, call_id="one")], [assistant_message("Done.")]]
    agent = Agent("Buyer", model=ScriptedModel(turns), tools=[buy])
    result = await world.task.run_at_epoch(lambda: ax.OpenAIRunner(world.task.agent_id).run(agent), 1)
    assert not failures
    assert result.to_input_list()[2]["output"] == "bought pen"
    with RUNTIME.engine.connect() as connection:
        assert connection.scalars(text("SELECT topic FROM payment")).all() == ["pen"]


@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_a_wait_ends_with_the_timeout_of_the_task(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ax.Pool()
    begun: list[Patience | None] = []

    def away(*_: Any) -> Any:
        raise ax.UnavailableError("The database cannot be used.")

    async def handle(agent_id: UUID, context: Any) -> Any:
        begun.append(current_patience())
        return await ax.enqueue("child") if kind == "async" else ax.Tracker("any").count

    pool.add_task("handle", handle, timeout=0.3)
    monkeypatch.setattr("agentexec.journal.trackers.read_count", away)
    monkeypatch.setattr("agentexec.client.enqueue.ChildBatch.accept", away)
    with ax.testing.harness(pool) as harness:
        task = harness.run("handle")
    assert task.status is ax.Status.ERROR
    assert begun[0] is not None and begun[0].ended


@pytest.mark.parametrize(
    "name", ["send_event", "send_event_sync", "activity.create", "retry", "Tracker.incr"]
)
async def test_a_call_that_waits_is_not_made_once_another_worker_has_the_task(
    name: str, new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    before = record()
    take_lock = transactions.take_write_lock
    failures = [True]

    def flaky(connection: Any) -> None:
        if failures:
            failures.clear()
            with Session(connection.engine) as db:
                db.execute(update(Activity).where(Activity.agent_id == world.task.agent_id).values(epoch=2))
                db.commit()
            raise sqlite3.OperationalError("the connection is gone")
        take_lock(connection)

    monkeypatch.setattr(transactions, "take_write_lock", lambda connection: translated(flaky, connection))
    with pytest.raises(ax.LeaseLostError):
        await world.run(CALLS[name])
    assert not failures
    assert record() | {"agentexec_activity": []} == before | {"agentexec_activity": []}


def translated(call: Callable[[Any], None], connection: Any) -> None:
    """Make a call on a connection, with errors as SQLAlchemy raises them."""
    try:
        call(connection)
    except sqlite3.OperationalError as error:
        raise exc.OperationalError("BEGIN", None, error) from error
