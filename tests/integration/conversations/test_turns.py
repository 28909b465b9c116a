"""Turns of a conversation: messages are taken in order, one turn each, and its history is kept by `ax.Session`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.conversations import inbox
from agentexec.runtime import RUNTIME

Chat = tuple[ax.testing.AsyncHarness, ax.Conversation]

pool = ax.Pool()


@pool.task("support")
async def support(agent_id: UUID, context: ax.Turn) -> str:
    agent = Agent("Support", instructions="Answer.")
    result = await ax.OpenAIRunner(agent_id).run(agent, context.text, session=context.session)
    return str(result.final_output)


@function_tool(needs_approval=True)
async def refund(amount: int) -> str:
    return f"refunded {amount}"


@pool.task("clerk")
async def clerk(agent_id: UUID, context: ax.Turn) -> str:
    result = await ax.OpenAIRunner(agent_id).run(Agent("Clerk", tools=[refund]), context.text)
    return str(result.final_output)


@pool.task("shout")
async def shout(agent_id: UUID, context: ax.Turn) -> str:
    return context.text.upper()


@pytest.fixture
async def harness() -> AsyncIterator[ax.testing.AsyncHarness]:
    async with ax.testing.harness(pool) as harness:
        yield harness


@pytest.fixture
async def database_harness(tables_url: str) -> AsyncIterator[ax.testing.AsyncHarness]:
    async with ax.testing.harness(pool, engine=create_engine(tables_url)) as harness:
        yield harness


def said(items: list[ax.HistoryItem]) -> list[str]:
    """Return the texts of a history's items."""
    contents = [entry.item["content"] for entry in items]
    return [content if isinstance(content, str) else content[0]["text"] for content in contents]


async def test_each_message_gets_a_turn_that_sees_the_turns_before(
    database_harness: ax.testing.AsyncHarness,
) -> None:
    harness = database_harness
    harness.model.say("Hello.").say("Fine.")
    chat = ax.conversation("user:1", task="support", metadata={"tenant": "acme"})
    first, second = await chat.send("Hi"), await chat.send("How are you?")
    assert [first.number, second.number] == [1, 2]
    await harness.run_all()
    assert [await chat.result(message) for message in (first, second)] == ["Hello.", "Fine."]
    history = await chat.history()
    assert said(history) == ["Hi", "Hello.", "How are you?", "Fine."]
    assert [entry.agent_id for entry in history] == [first.agent_id] * 2 + [second.agent_id] * 2
    assert [item["content"] for item in harness.model.calls[1].input[::2]] == ["Hi", "How are you?"]
    assert said(await chat.history(2, before=history[2].number)) == ["Hi", "Hello."]
    assert [message.state for message in await chat.messages()] == ["taken", "taken"]
    assert await ax.Session("user:1").get_items() == [entry.item for entry in history]


async def test_turns_have_the_labels_of_their_conversation_whoever_sends(
    harness: ax.testing.AsyncHarness,
) -> None:
    await ax.Session("user:1").add_items([{"role": "user", "content": "before"}])
    sent = [
        await ax.conversation("user:1", **options).send("a")
        for options in (
            {"task": "shout", "metadata": {"tenant": "acme"}},
            {},
            {"metadata": {"tenant": "other", "page": 2}},
        )
    ]
    with Session(RUNTIME.engine) as db:
        found, own, other = (
            {item.agent_id for item in ax.activity.list(db, metadata_filter=labels).items}
            for labels in ({"tenant": "acme"}, {"page": 2}, {"tenant": "other"})
        )
    assert found == {message.agent_id for message in sent}
    assert (own, other) == ({sent[2].agent_id}, set())


async def test_a_busy_conversation_refuses_what_is_to_be_rejected(harness: ax.testing.AsyncHarness) -> None:
    chat = ax.conversation("user:1", task="shout")
    first = await chat.send("a", if_busy="reject")
    with pytest.raises(ax.ConversationBusyError, match="'user:1' has a turn that runs or waits"):
        await chat.send("b", if_busy="reject")
    await ax.conversation("user:2", task="shout").send("b", if_busy="reject")
    await harness.run_all()
    assert await chat.result(first) == "A"
    assert (await chat.send("c", if_busy="reject")).number == 2


async def test_a_canceled_message_is_dropped_and_the_next_ones_have_their_turns(
    harness: ax.testing.AsyncHarness,
) -> None:
    chat = ax.conversation("user:1", task="shout")
    messages = [await chat.send(text) for text in "abc"]
    assert await ax.cancel(messages[1].agent_id)
    await harness.run_all()
    assert [await chat.result(messages[number]) for number in (0, 2)] == ["A", "C"]
    with pytest.raises(ax.TaskCanceledError):
        await chat.result(messages[1])
    await chat.send("d", if_busy="reject")
    assert [message.state for message in await chat.messages()] == ["taken", "dropped", "taken", "waiting"]
    await ax.retry(messages[1].agent_id)
    await harness.run_all()
    assert await chat.result(2) == "B"


async def test_turns_that_start_out_of_order_take_the_messages_in_order(
    database_harness: ax.testing.AsyncHarness,
) -> None:
    harness = database_harness
    chat = ax.conversation("user:1", task="shout")
    a, b = [await chat.send(text) for text in "ab"]
    # Redis too gets tasks in another order than the record's if it was away meanwhile.
    c = await ax.conversation("user:1", task="shout", priority=ax.Priority.HIGH).send("c")
    await harness.run_only(c.agent_id)
    assert [(message.text, message.state) for message in await chat.messages()] == [
        ("a", "taken"),
        ("b", "waiting"),
        ("c", "waiting"),
    ]
    await harness.run_all()
    assert [await chat.result(message) for message in (a, b, c)] == ["A", "B", "C"]
    assert (await chat.messages())[0].agent_id == c.agent_id


async def test_a_message_with_a_known_key_is_sent_once(harness: ax.testing.AsyncHarness) -> None:
    chat = ax.conversation("user:1", task="shout")
    first = await chat.send("a", idempotency_key="click")
    assert await chat.send("again", idempotency_key="click") == first
    assert (await ax.conversation("user:2", task="shout").send("b", idempotency_key="click")).text == "b"
    await harness.run_all()
    assert (await chat.send("again", idempotency_key="click")).state == "taken"
    assert len(await chat.messages()) == 1


async def test_the_inbox_has_a_limit(
    harness: ax.testing.AsyncHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_WAITING", 2)
    chat = ax.conversation("user:1", task="shout")
    for text in "ab":
        await chat.send(text)
    with pytest.raises(ax.ConversationBusyError, match="2 messages waiting"):
        await chat.send("c")
    await harness.run_all()
    await chat.send("c")


async def test_the_stream_goes_on_from_turn_to_turn_and_resumes_anywhere(
    harness: ax.testing.AsyncHarness,
) -> None:
    harness.model.say("Hello.").say("Fine.")
    chat = ax.conversation("user:1", task="support")
    await chat.send("Hi")
    await chat.send("How are you?")
    await harness.run_all()
    events = await read(chat.stream(after="0.0.0"), turns=2)
    assert [event.data.get("text") for event in events if event.type == "message"] == ["Hi", "How are you?"]
    assert [event.type for event in events if event.ends_turn] == ["result", "result"]
    for place, event in enumerate(events[:-1]):
        rest = await read(chat.stream(after=event.id), turns=sum(e.ends_turn for e in events[place + 1 :]))
        assert [event.id for event in rest] == [event.id for event in events[place + 1 :]]
    in_order = iter(chat.stream(after=events[-3].id))
    assert [next(in_order).id, next(in_order).id] == [event.id for event in events[-2:]]


async def test_the_options_of_the_first_message_count_for_every_turn(
    database_harness: ax.testing.AsyncHarness,
) -> None:
    options: dict[str, Any] = {
        "priority": ax.Priority.HIGH,
        "fairness_key": "acme",
        "budget": "9000 tokens",
        "queue_name": "chats",
    }
    await ax.conversation("user:1", task="support", **options).send("Hi")
    await ax.conversation("user:1").send("How are you?")
    await ax.conversation("user:1", task="support", budget="500 tokens").send("Bye")
    query = select(Activity.priority, Activity.fairness_key, Activity.budget, Activity.queue)
    with RUNTIME.engine.connect() as connection:
        turns = connection.execute(query.order_by(Activity.created_at, Activity.agent_id)).all()
    assert [(turn.priority, turn.fairness_key, turn.queue) for turn in turns] == [(0, "acme", "chats")] * 3
    assert ["9000" in turn.budget for turn in turns] == [True, True, False]


async def test_a_conversation_outlives_its_activities_and_ends_when_it_is_deleted(
    database_harness: ax.testing.AsyncHarness,
) -> None:
    harness = database_harness
    chat = ax.conversation("user:1", task="support", metadata={"tenant": "acme"})
    harness.model.say("Hello.").say("Fine.")
    await chat.send("Hi")
    await harness.run_all()
    with Session(RUNTIME.engine) as db:
        assert ax.activity.prune(db, timedelta(0)) == 1
    assert said(await chat.history()) == ["Hi", "Hello."]
    await chat.send("How are you?", if_busy="reject")
    await harness.run_all()
    # The turn whose activity was pruned has left its message in the stream.
    events = await read(chat.stream(after="0.0.0"), turns=1)
    assert [event.data["text"] for event in events if event.type == "message"] == ["Hi", "How are you?"]
    waiting = await chat.send("Bye")
    assert await chat.delete()
    assert not await chat.delete()
    assert (harness.task(waiting.agent_id).status, await chat.history()) == ("canceled", [])
    await harness.run_all()
    with pytest.raises(ax.UsageError, match="has not begun"):
        await ax.conversation("user:1").send("Hi")


async def read(
    stream: ax.client.conversation_stream.ConversationStream, turns: int
) -> list[ax.ConversationEvent]:
    events = []
    async for event in stream:
        events.append(event)
        turns -= event.ends_turn
        if not turns:
            break
    return events


async def test_a_rule_of_a_conversation_is_about_its_turns(harness: ax.testing.AsyncHarness) -> None:
    """The turns of this task use no session."""
    chat, other = ax.conversation("user:1", task="clerk"), ax.conversation("user:2", task="clerk")
    harness.model.call_tool("refund", {"amount": 5})
    first = await chat.send("Pay.")
    await harness.run_all()
    [call] = harness.approvals
    await ax.approve(call.agent_id, call.call_id, rule=ax.AllLikeIt([], scope="conversation"))
    harness.model.say("Paid.").call_tool("refund", {"amount": 6}).say("Paid again.")
    second = await chat.send("Pay again.")
    await harness.run_all()
    assert [await chat.result(message) for message in (first, second)] == ["Paid.", "Paid again."]
    harness.model.call_tool("refund", {"amount": 7})
    await other.send("Pay me.")
    await harness.run_all()
    assert [call.arguments for call in harness.approvals] == ['{"amount":7}']
