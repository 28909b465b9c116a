"""Sessions of durable runs: whatever the SDK gives a session or reads of it, a durable run gives and reads too."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, RunConfig, SessionSettings, SQLiteSession, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


async def finish(
    task: ReplayableTask, mode: str, agent: Agent[Any], input: Any = "Go.", **options: Any
) -> Any:
    runner = ax.OpenAIRunner(task.agent_id)
    if mode == "run":
        return await runner.run(agent, input, **options)
    result = await runner.run_streamed(agent, input, **options)
    async for _ in result.stream_events():
        pass
    return result


class TenantSession:
    """The SDK's contract of a context-aware session: each method takes `wrapper`."""

    session_id = "s"
    session_settings = None

    def __init__(self) -> None:
        self.tenants: dict[str, list[Any]] = defaultdict(list)

    async def get_items(self, limit: int | None = None, *, wrapper: Any = None) -> list[Any]:
        items = self.tenants[wrapper.context]
        return items[:] if limit is None else items[-limit:]

    async def add_items(self, items: list[Any], *, wrapper: Any = None) -> None:
        self.tenants[wrapper.context].extend(items)

    async def pop_item(self, *, wrapper: Any = None) -> Any:
        return self.tenants[wrapper.context].pop()

    async def clear_session(self, *, wrapper: Any = None) -> None:
        self.tenants[wrapper.context].clear()


@both_modes
async def test_a_context_aware_session_keeps_tenants_apart_in_every_attempt(
    task: ReplayableTask, mode: str
) -> None:
    session = TenantSession()
    session.tenants["a"] = [{"role": "user", "content": "Of a"}]
    other = ReplayableTask()
    for tenant, own in (("a", task), ("b", other)):
        turns = [[function_call("look", {}, call_id="c")], [assistant_message(f"To {tenant}")]]
        model = ScriptedModel(turns)
        agent = Agent("A", model=model, tools=[function_tool(_look, name_override="look")])
        await own.attempt(functools.partial(finish, own, mode, agent, context=tenant, session=session))
        before = [*session.tenants[tenant]]
        own.delete_entries([("A#1", 2)])
        agent.model = again = ScriptedModel(turns[1:])
        await own.attempt(functools.partial(finish, own, mode, agent, context=tenant, session=session))
        assert session.tenants[tenant] == before
        assert again.calls[0].input == model.calls[1].input
    assert [item.get("content") for item in session.tenants["a"]][:2] == ["Of a", "Go."]
    assert session.tenants["b"][0]["content"] == "Go."
    assert set(session.tenants) == {"a", "b"}


def _look() -> str:
    return "seen"


class HalfAwareSession(SQLiteSession):
    """A session in which only one method takes `wrapper`: to the SDK it is an ordinary one."""

    async def get_items(self, limit: int | None = None, wrapper: Any = None) -> list[Any]:
        assert wrapper is None
        return await super().get_items(limit)


class PlainFunctionSession:
    """A session with plain functions, which the SDK accepts, and an option of its own."""

    session_id = "s"

    def __init__(self) -> None:
        self.items: list[Any] = []

    def get_items(self, *, limit: int | None = None, newest_first: bool = False) -> list[Any]:
        return self.items[:] if limit is None else self.items[-limit:]

    def add_items(self, items: list[Any]) -> None:
        self.items.extend(items)

    def pop_item(self) -> Any:
        return self.items.pop()

    def clear_session(self) -> None:
        self.items.clear()


@both_modes
@pytest.mark.parametrize("kind", [lambda: HalfAwareSession("s"), PlainFunctionSession])
async def test_sessions_are_called_as_the_sdk_calls_them(task: ReplayableTask, mode: str, kind: Any) -> None:
    session = kind()
    agent = Agent("A", model=ScriptedModel([[assistant_message("Hi.")]]))
    for _ in range(2):
        result = await task.attempt(lambda: finish(task, mode, agent, session=session))
    assert result.final_output == "Hi."
    items = session.items if kind is PlainFunctionSession else await session.get_items()
    assert len(items) == 2


class CountingSession(SQLiteSession):
    """A session that counts the items that are read."""

    read = 0

    async def get_items(self, limit: int | None = None) -> list[Any]:
        items = await super().get_items(limit)
        self.read += len(items)
        return items


@both_modes
@pytest.mark.parametrize("place", ["session", "run_config"])
async def test_a_run_reads_of_a_long_session_what_the_sdk_reads(
    task: ReplayableTask, mode: str, place: str
) -> None:
    limit = SessionSettings(limit=20)
    session = CountingSession("s", session_settings=limit if place == "session" else None)
    await session.add_items([{"role": "user", "content": f"Earlier {number}"} for number in range(3000)])
    config = RunConfig(session_settings=limit if place == "run_config" else None)
    model = ScriptedModel([[function_call("look", {}, call_id="c")], [assistant_message("Hi.")]])
    agent = Agent("A", model=model, tools=[function_tool(_look, name_override="look")])
    await task.attempt(lambda: finish(task, mode, agent, session=session, run_config=config))
    assert session.read == 20
    assert model.calls[0].input[0] == {"role": "user", "content": "Earlier 2980"}
    session.read = 0
    task.delete_entries([("A#1", 2)])
    agent.model = again = ScriptedModel([[assistant_message("Hi.")]])
    await task.attempt(lambda: finish(task, mode, agent, session=session, run_config=config))
    assert again.calls[0].input == model.calls[1].input
    assert session.read <= 3 * 20
    assert len(await session.get_items(5000)) == 3004


@pytest.mark.parametrize("limit", [0, 2, 20])
@pytest.mark.parametrize("answered", [False, True], ids=["cut-before-the-answer", "cut-after-it"])
@pytest.mark.parametrize("history", [0, 4, 60])
async def test_a_history_that_repeats_itself_gets_each_item_once(
    task: ReplayableTask, limit: int, answered: bool, history: int
) -> None:
    """A scheduled check says the same every time, and Chat Completions gives its items no ids."""
    session = SQLiteSession("s", session_settings=SessionSettings(limit=limit))
    exchange: list[Any] = [{"role": "user", "content": "Check."}, {"role": "assistant", "content": "Fine."}]
    await session.add_items(exchange * history)
    model = ScriptedModel([[assistant_message("Fine.")], RuntimeError("the worker dies")])
    agent = Agent("A", model=model if answered else ScriptedModel([RuntimeError("the worker dies")]))
    if answered:
        await task.attempt(lambda: finish(task, "run", agent, "Check.", session=session))
    else:
        with pytest.raises(RuntimeError):
            await task.attempt(lambda: finish(task, "run", agent, "Check.", session=session))
    agent.model = ScriptedModel([] if answered else [[assistant_message("Fine.")]])
    await task.attempt(lambda: finish(task, "run", agent, "Check.", session=session))
    assert len(await session.get_items(1000)) == 2 * history + 2


@both_modes
async def test_a_session_input_callback_sees_the_same_history_in_every_attempt(
    task: ReplayableTask, mode: str
) -> None:
    session = SQLiteSession("s")
    await session.add_items([{"role": "user", "content": f"Earlier {number}"} for number in range(9)])
    seen: list[Any] = []

    def merge(history: list[Any], new: list[Any]) -> list[Any]:
        seen.append([item["content"] for item in history])
        return history[-1:] + new

    config = RunConfig(session_input_callback=merge, session_settings=SessionSettings(limit=3))
    model = ScriptedModel([[function_call("look", {}, call_id="c")], [assistant_message("Hi.")]])
    agent = Agent("A", model=model, tools=[function_tool(_look, name_override="look")])
    await task.attempt(lambda: finish(task, mode, agent, session=session, run_config=config))
    task.delete_entries([("A#1", 2)])
    agent.model = again = ScriptedModel([[assistant_message("Hi.")]])
    await task.attempt(lambda: finish(task, mode, agent, session=session, run_config=config))
    assert seen == [["Earlier 6", "Earlier 7", "Earlier 8"]] * 2
    assert again.calls[0].input == model.calls[1].input
    assert len(await session.get_items()) == 9 + 4
