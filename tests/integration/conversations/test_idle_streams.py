"""Streams of many conversations that wait for a turn: one look at the record serves them all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from agentexec.client.conversation_watch import ConversationWatch
from tests.waiting import wait_until_async

pool = ax.Pool()


@pool.task("shout")
async def shout(agent_id: UUID, context: ax.Turn) -> str:
    return context.text.upper()


@pytest.fixture
async def harness() -> AsyncIterator[ax.testing.AsyncHarness]:
    async with ax.testing.harness(pool) as harness:
        yield harness


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The conversations of each look at the record that has woken none of them."""
    looks: list[set[str]] = []
    find = ConversationWatch._find_taken

    def noting(self: ConversationWatch, waiters: list[Any]) -> list[Any]:
        found = find(self, waiters)
        if not found:
            looks.append({waiter.conversation for waiter in waiters})
        return found

    monkeypatch.setattr(ConversationWatch, "_find_taken", noting)
    return looks


async def test_one_look_serves_all_streams_and_wakes_those_that_have_a_turn(
    harness: ax.testing.AsyncHarness, looks: list[set[str]]
) -> None:
    chats = [ax.conversation(f"user:{number}", task="shout") for number in range(20)]
    names = {chat.conversation_id for chat in chats}
    for chat in chats:
        await chat.begin()
    readers = [asyncio.ensure_future(first_text(chat)) for chat in chats]
    await wait_until_async(lambda: names in looks)
    await chats[7].send("hi")
    await harness.run_all()
    assert await readers[7] == "hi"
    await wait_until_async(lambda: names - {"user:7"} in looks)
    assert [reader.done() for reader in readers].count(True) == 1
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    # Nobody waits any more, so nothing looks either.
    await wait_until_async(lambda: not any(t.name == "agentexec-chats" for t in threading.enumerate()))


async def first_text(chat: ax.Conversation) -> Any:
    events = aiter(chat.stream(after="0.0.0"))
    try:
        return (await anext(events)).data["text"]
    finally:
        await events.aclose()


async def test_a_stream_without_an_event_loop_waits_too(
    harness: ax.testing.AsyncHarness, looks: list[set[str]]
) -> None:
    chat = ax.conversation("user:1", task="shout")
    await chat.begin()
    reader = asyncio.ensure_future(asyncio.to_thread(lambda: next(iter(chat.stream(after="0.0.0")))))
    await wait_until_async(lambda: looks)
    await chat.send("hi")
    await harness.run_all()
    assert (await reader).data["text"] == "hi"
