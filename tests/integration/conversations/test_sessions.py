"""`ax.Session`: the SDK's contract of a session, and exactly one copy of each item whatever crashes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from agents import Session

import agentexec as ax
from agentexec.runtime import RUNTIME

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def configured(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def test_it_keeps_the_sdks_contract() -> None:
    session = ax.Session("s")
    assert isinstance(session, Session)
    assert await session.get_items() == []
    assert await session.pop_item() is None
    items = [user("a"), user("b"), user("ü\u2028")]
    await session.add_items(items[:2])
    await session.add_items(items[2:])
    await session.add_items([])
    assert await session.get_items() == items
    assert await session.get_items(2) == items[1:]
    assert await ax.Session("other").get_items() == []
    assert await session.pop_item() == items[2]
    assert await session.get_items() == items[:2]
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items(items[:1])
    assert await session.get_items() == items[:1]


async def test_a_long_history_is_read_from_a_message_of_the_user_on() -> None:
    turn = [user("Q"), {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}]
    turn += [{"type": "function_call_output", "call_id": "c", "output": "seen"}, user("Thanks")]
    await ax.Session("s").add_items(turn * 3)
    for limit in range(1, 12):
        items = await ax.Session("s", limit=limit).get_items()
        assert items == (turn * 3)[-limit:] if limit in (1, 4, 5, 8, 9) else items[0]["role"] == "user"
        assert len(items) <= limit
    assert await ax.Session("s", limit=12).get_items() == turn * 3
