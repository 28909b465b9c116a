"""Transactional calls on SQLite beside code that blocks their event loop: neither waits for the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import text

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

INSERT = text("INSERT INTO payment VALUES (:topic)")


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    with RUNTIME.engine.begin() as connection:
        connection.execute(text("CREATE TABLE payment (topic VARCHAR(50))"))
    yield ReplayableTask()
    with RUNTIME.engine.begin() as connection:
        connection.execute(text("DROP TABLE payment"))
    RUNTIME.close()


def payments() -> list[str]:
    with RUNTIME.engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT topic FROM payment")))


class Beside:
    """Code beside a call, on its event loop, that blocks the loop to write."""

    def __init__(self) -> None:
        self.activity = ax.activity.create("by hand")
        self.calls = 0

    def write(self) -> None:
        ax.activity.update(self.activity, "Written.")

    async def run(self, task: ReplayableTask, tool: Any, write: Callable[[], Any]) -> str:
        """Run an agent that calls a tool, and return the output that its model gets."""
        calls = [function_call("buy", {"topic": "pen"}, call_id="one")]
        model = ScriptedModel([calls, [assistant_message("Done.")]])
        agent = Agent("Buyer", model=model, tools=[ax.tool_policy("transactional")(tool)])
        result, _ = await asyncio.gather(
            task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent)), write()
        )
        return result.to_input_list()[2]["output"]

    def check(self, task: ReplayableTask) -> None:
        """Check that the call was made twice and paid once, and that the other code has written."""
        assert self.calls == 2
        assert payments() == ["change", "pen"]
        assert [kind for path, _, kind in task.journal() if "buy" in path or "one" in path] == [
            "intent",
            "outcome",
        ]
        with RUNTIME.engine.connect() as connection:
            lines = connection.scalars(text("SELECT message FROM agentexec_activity_log")).all()
        assert lines.count("Written.") == 1


async def test_a_call_whose_transaction_waits_for_a_blocked_loop_is_made_again(task: ReplayableTask) -> None:
    beside = Beside()
    is_open, is_left = threading.Event(), threading.Event()

    @function_tool
    def buy(topic: str) -> str:
        beside.calls += 1
        with ax.transaction() as db:
            is_open.set()
            db.execute(INSERT, {"topic": topic})
            db.execute(INSERT, {"topic": "change"})
        is_left.set()
        return f"bought {topic}"

    async def write() -> None:
        while not is_open.is_set():  # noqa: ASYNC110 - set in a thread
            await asyncio.sleep(0)
        is_left.wait()
        beside.write()

    assert await beside.run(task, buy, write) == "bought pen"
    beside.check(task)


@pytest.mark.parametrize("then", ["with a statement", "without one", "after an error that it hides"])
async def test_a_call_that_awaits_in_its_transaction_is_made_again_and_leaves_no_half(
    task: ReplayableTask, then: str
) -> None:
    beside = Beside()
    is_open, may_continue = asyncio.Event(), asyncio.Event()
    accepted: list[str] = []

    @function_tool
    async def buy(topic: str) -> str:
        beside.calls += 1
        with ax.transaction() as db:
            # Twice the same statement: the second one takes the short way to SQLite.
            db.execute(INSERT, {"topic": topic})
            is_open.set()
            await may_continue.wait()
            if beside.calls > 1 or then == "with a statement":
                db.execute(INSERT, {"topic": "change"})
            elif then == "after an error that it hides":
                with suppress(Exception):
                    db.execute(INSERT, {"topic": "change"})
                    accepted.append(topic)
        return f"bought {topic}"

    async def write() -> None:
        await is_open.wait()
        beside.write()
        may_continue.set()

    assert await beside.run(task, buy, write) == "bought pen"
    beside.check(task)
    assert not accepted, "no statement follows the rollback"


async def test_a_transaction_keeps_the_lock_from_its_own_call(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be made again and again."""
    monkeypatch.setattr("agentexec.db.sqlite.BUSY_TIMEOUT_MS", 50)
    beside = Beside()
    errors: list[Exception] = []

    @function_tool
    async def buy(topic: str) -> str:
        with ax.transaction() as db:
            db.execute(INSERT, {"topic": topic})
            try:
                beside.write()
            except ax.UnavailableError as error:
                errors.append(error)
        return f"bought {topic}"

    assert await beside.run(task, buy, lambda: asyncio.sleep(0)) == "bought pen"
    assert payments() == ["pen"]
    assert "locked" in str(errors)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_call_that_writes_elsewhere_after_its_block_fails_and_waits_for_nothing(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """It would wait for a lock that it has itself until its end."""
    monkeypatch.setattr("agentexec.db.sqlite.BUSY_TIMEOUT_MS", 50)
    errors: list[Exception] = []

    def insert(topic: str) -> None:
        with ax.transaction() as db:
            db.execute(INSERT, {"topic": topic})

    async def buy(topic: str) -> str:
        insert(topic)
        try:
            await ax.enqueue("ship", {"topic": topic})
        except ax.UnavailableError as error:
            errors.append(error)
        return f"bought {topic}"

    def buy_in_thread(topic: str) -> str:
        insert(topic)
        try:
            ax.enqueue_sync("ship", {"topic": topic})
        except ax.UnavailableError as error:
            errors.append(error)
        return f"bought {topic}"

    tool = function_tool(buy if is_async else buy_in_thread, name_override="buy")
    assert await Beside().run(task, tool, lambda: asyncio.sleep(0)) == "bought pen"
    assert payments() == ["pen"]
    assert "ax.transaction()" in str(errors)
