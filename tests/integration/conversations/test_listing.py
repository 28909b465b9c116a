"""Lists of conversations by their labels: all that fit are found, and those that changed last come first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

import agentexec as ax
from agentexec.conversations import listing
from agentexec.conversations.listing import list_conversations
from agentexec.runtime import RUNTIME
from agentexec.schema.migrate import migrate_to

pool = ax.Pool()


@pool.task("shout")
async def shout(agent_id: UUID, context: ax.Turn) -> str:
    return context.text.upper()


@pytest.fixture
async def harness(tables_url: str) -> AsyncIterator[ax.testing.AsyncHarness]:
    async with ax.testing.harness(pool, engine=create_engine(tables_url)) as harness:
        yield harness


def names(labels: dict[str, Any] | None, limit: int = 10) -> list[str]:
    return [found.id for found in list_conversations(RUNTIME.engine, limit=limit, metadata_filter=labels)]


@pytest.mark.parametrize("counted", [1, 3, 100])
async def test_conversations_are_found_by_labels_however_many_have_them(
    harness: ax.testing.AsyncHarness, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNTED", counted)
    for number in range(6):
        labels = {"tenant": "acme" if number % 3 else "other", "number": number, "paid": number < 4}
        await ax.conversation(f"user:{number}", task="shout", metadata=labels).begin()
    # A session comes before the first message, and the labels with that.
    await ax.Session("early").add_items([{"role": "user", "content": "Hi"}])
    await ax.conversation("early", task="shout", metadata={"tenant": "acme", "long": "x" * 500}).send("Hi")
    await ax.conversation("user:2").send("Hi")
    assert names(None) == ["user:2", "early", *(f"user:{number}" for number in (5, 4, 3, 1, 0))]
    assert names({"tenant": "acme"}) == ["user:2", "early", "user:5", "user:4", "user:1"]
    assert names({"tenant": "acme"}, limit=2) == ["user:2", "early"]
    assert names({"tenant": "acme", "paid": True}) == ["user:2", "user:1"]
    assert names({"number": 3}) == ["user:3"]
    assert names({"long": "x" * 500}) == ["early"]
    assert names({"number": "3"}) == names({"tenant": "acme", "number": 0}) == names({"nobody": 1}) == []
    assert await ax.conversation("user:5").delete()
    assert names({"tenant": "acme"}) == ["user:2", "early", "user:4", "user:1"]


def test_a_migration_labels_the_conversations_that_are_there(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    migrate_to(engine, "0019")
    with engine.begin() as connection:
        for name, labels in (("a", '{"tenant": "acme", "list": [1]}'), ("b", None)):
            connection.execute(
                text(
                    "INSERT INTO agentexec_conversation VALUES (:name, 't', :labels, 0, 0, 0, :now, :now, NULL)"
                ),
                {"name": name, "labels": labels, "now": "2026-01-01 00:00:00.000000"},
            )
    migrate_to(engine, "head")
    assert [
        found.id for found in list_conversations(engine, limit=9, metadata_filter={"tenant": "acme"})
    ] == ["a"]
    engine.dispose()
