"""Messages that are sent while a turn runs: they join it before its next model call, or interrupt it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from sqlalchemy import create_engine

import agentexec as ax

pool = ax.Pool()
arriving: list[tuple[str, Any]] = []
"""Messages to be sent by the next calls of the tool."""


@ax.tool_policy("idempotent")
@function_tool
async def look(about: str) -> str:
    """Look."""
    if arriving:
        text, if_busy = arriving.pop(0)
        await ax.conversation("user:1", task="support").send(text, if_busy=if_busy)
    return f"seen {about}"


@ax.tool_policy("idempotent")
@function_tool(needs_approval=True)
async def publish(about: str) -> str:
    """Publish."""
    return f"published {about}"


@pool.task("support")
async def support(agent_id: UUID, context: ax.Turn) -> str:
    agent = Agent("Support", instructions="Answer.", tools=[look, publish])
    result = await ax.OpenAIRunner(agent_id).run(agent, context.text, session=context.session)
    return str(result.final_output)


@pytest.fixture
async def harness(tables_url: str) -> AsyncIterator[ax.testing.AsyncHarness]:
    arriving.clear()
    async with ax.testing.harness(pool, engine=create_engine(tables_url)) as harness:
        yield harness


def short(items: list[Any]) -> list[str]:
    """Return each item in a few words."""
    return [_short(item if isinstance(item, dict) else item.model_dump()) for item in items]


def _short(item: dict[str, Any]) -> str:
    content = item.get("content")
    if item.get("role") == "user":
        return str(content)
    return str(content[0]["text"] if content else item.get("output") or item["name"])


async def history(chat: ax.Conversation) -> list[str]:
    return short([entry.item for entry in await chat.history()])


async def test_a_message_joins_the_running_turn_before_its_next_model_call(
    harness: ax.testing.AsyncHarness,
) -> None:
    harness.model.call_tool("look", {"about": "a"}).call_tool("look", {"about": "b"}).say("Both.").say("Bye.")
    arriving.append(("And b", "steer"))
    chat = ax.conversation("user:1", task="support")
    first = await chat.send("Look at a")
    await harness.run_all()
    expected = ["Look at a", "look", "seen a", "And b", "look", "seen b"]
    assert [short(call.input) for call in harness.model.calls] == [expected[:1], expected[:4], expected]
    assert await history(chat) == [*expected, "Both."]
    [_, joined] = await chat.messages()
    assert (joined.state, joined.agent_id) == ("joined", first.agent_id)
    assert await chat.result(joined) == await chat.result(first) == "Both."
    tasks = {task.status for task in harness.tasks}
    assert tasks == {ax.Status.COMPLETE, ax.Status.CANCELED}
    assert (await chat.send("Thanks", if_busy="reject")).number == 3
    await harness.run_all()
    assert await history(chat) == [*expected, "Both.", "Thanks", "Bye."]


async def test_a_message_joins_a_turn_that_waits_for_an_approval_and_the_history_keeps_all(
    harness: ax.testing.AsyncHarness,
) -> None:
    harness.model.call_tool("publish", {"about": "a"}).call_tool("publish", {"about": "b"}).say("Both.")
    chat = ax.conversation("user:1", task="support")
    await chat.send("Publish a")
    await harness.run_all()
    await chat.send("And b", if_busy="steer")
    for _ in "ab":
        [call] = harness.approvals
        await ax.approve(call.agent_id, call.call_id)
        await harness.run_all()
    expected = ["Publish a", "publish", "published a", "And b", "publish", "published b"]
    assert [short(call.input) for call in harness.model.calls] == [expected[:1], expected[:4], expected]
    assert await history(chat) == [*expected, "Both."]


async def test_a_message_that_comes_after_the_last_model_call_gets_a_turn(
    harness: ax.testing.AsyncHarness,
) -> None:
    harness.model.say("Hello.").say("Fine.")
    chat = ax.conversation("user:1", task="support")
    await chat.send("Hi")
    [task] = [message.agent_id for message in await chat.messages()]
    await harness.run_only(task)
    late = await chat.send("How are you?", if_busy="steer")
    await harness.run_all()
    assert await chat.result(late) == "Fine."
    assert await history(chat) == ["Hi", "Hello.", "How are you?", "Fine."]


async def test_an_interrupted_turn_keeps_what_it_has_done_and_the_message_is_next(
    harness: ax.testing.AsyncHarness,
) -> None:
    calls = [("look", {"about": "a"}), ("look", {"about": "b"})]
    harness.model.call_tools(*calls).say("Stopped.").say("Later.")
    arriving.append(("Later", "queue"))
    arriving.append(("Stop", "interrupt"))
    chat = ax.conversation("user:1", task="support")
    first = await chat.send("Look at a and b")
    await harness.run_all()
    with pytest.raises(ax.TaskCanceledError):
        await chat.result(first)
    assert "Interrupted by the next message" in harness.task(first.agent_id).messages[-1]
    begin = ["Look at a and b", "look", "look", "seen a", "seen b"]
    assert await history(chat) == [*begin, "Stop", "Stopped.", "Later", "Later."]
    assert [message.state for message in await chat.messages()] == ["taken"] * 3


async def test_calls_that_have_not_begun_are_not_made_in_an_interrupted_turn(
    harness: ax.testing.AsyncHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.model.call_tool("look", {"about": "a"}).say("Stopped.")
    answer = type(harness.model).get_response

    async def answer_late(*args: Any, **kwargs: Any) -> Any:
        response = await answer(*args, **kwargs)
        if len(harness.model.calls) == 1:
            await ax.conversation("user:1").send("Stop", if_busy="interrupt")
        return response

    monkeypatch.setattr(type(harness.model), "get_response", answer_late)
    arriving.append(("never sent", "queue"))
    chat = ax.conversation("user:1", task="support")
    await chat.send("Look at a")
    await harness.run_all()
    refusal = "Not run: the user has sent another message."
    assert await history(chat) == ["Look at a", "look", refusal, "Stop", "Stopped."]
    assert len(arriving) == 1
