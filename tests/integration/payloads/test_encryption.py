"""With keys, no value of a user is in the database as it is, whichever store has written it, and every reader gets it back."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import pytest
from agents import Agent, function_tool
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.queries.contents import contents
from agentexec.arguments.encryption_keys import fingerprint
from agentexec.payloads import rotation
from agentexec.payloads.rotation import rotate
from agentexec.runtime import RUNTIME
from agentexec.schema.tables import Base
from tests.stores import stored_values, unsealed_values

OLD, NEW = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 254))
HUSH = "hush-7731"

pool = ax.Pool()


class Question(BaseModel):
    """Context of the task."""

    text: str


@function_tool(needs_approval=True)
async def look(about: str) -> str:
    """Look."""
    return f"seen {about}"


@pool.task("ask")
async def ask(*, agent_id: UUID, context: Question) -> str:
    """Talk to the model, wait for an event, and ask another task."""
    agent = Agent("Support", instructions="Answer.", tools=[look])
    answer = await ax.OpenAIRunner(agent_id).run(agent, context.text)
    event = await ax.wait_for_event("paid", "order 7", timeout=60)
    child = await ax.enqueue("echo", {"text": event})
    return f"{answer.final_output} {await ax.get_result(child)}"


@pool.task("echo")
async def echo(*, agent_id: UUID, context: Question) -> str:
    return context.text


@pool.task("support")
async def support(*, agent_id: UUID, context: ax.Turn) -> str:
    agent = Agent("Support", instructions="Answer.")
    return str(
        (await ax.OpenAIRunner(agent_id).run(agent, context.text, session=context.session)).final_output
    )


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ax.CONF, "encryption_keys", OLD)
    yield
    RUNTIME.close()


@pytest.fixture
async def harness(tables_url: str) -> AsyncIterator[ax.testing.AsyncHarness]:
    async with ax.testing.harness(pool, engine=create_engine(tables_url)) as harness:
        yield harness


def columns_with(engine: Engine, secret: str) -> set[str]:
    """Return the columns of the database that have a text somewhere."""
    with engine.connect() as connection:
        return {
            str(column)
            for table in Base.metadata.sorted_tables
            for row in connection.execute(text(f"SELECT * FROM {table.name}")).mappings()
            for column in table.columns
            if secret in str(row[column.name])
        }


async def test_values_are_encrypted_everywhere_and_every_reader_gets_them(
    harness: ax.testing.AsyncHarness,
) -> None:
    harness.model.call_tool("look", {"about": HUSH}).say(f"It is {HUSH}.").say("Hello.")
    task = await ax.enqueue("ask", {"text": HUSH})
    await harness.run_all()
    [question] = harness.approvals
    assert HUSH in str(question.arguments)
    await ax.approve(task.agent_id, question.call_id)
    await ax.send_event("paid", "order 7", HUSH)
    await harness.run_all()
    assert await ax.get_result(task) == f"It is {HUSH}. {HUSH}"
    chat = ax.conversation("user:1", task="support")
    await chat.send(HUSH)
    await harness.run_all()
    assert HUSH in str(await chat.history())
    engine = ax.get_engine()
    written = stored_values(engine)
    for name in (
        "activity.context",
        "approval.arguments",
        "conversation_item.item",
        "journal.value",
        "result.value",
    ):
        assert written[f"agentexec_{name}"], name
    # The log is for people to read; it says which call waits for them.
    assert columns_with(engine, HUSH) == {"agentexec_activity_log.message"}


async def test_rotation_encrypts_what_older_keys_or_no_keys_have_written(
    tables_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ax.configure(database_url=tables_url)
    engine = ax.get_engine()
    ax.CONF.encryption_keys = None
    plain = [ax.enqueue_sync("ask", {"text": f"plain {number}"}) for number in range(3)]
    ax.CONF.encryption_keys = OLD
    old = [ax.enqueue_sync("ask", {"text": f"old {number}"}) for number in range(4)]
    ax.CONF.encryption_keys = f"{NEW},{OLD}"
    ax.enqueue_sync("ask", {"text": "new"})
    monkeypatch.setattr(rotation, "BATCH", 2)
    assert sum(step.encrypted for step in rotate(engine, Base.metadata, fingerprint(NEW))) == 7
    assert sum(step.encrypted for step in rotate(engine, Base.metadata, fingerprint(NEW))) == 0
    ax.CONF.encryption_keys = NEW
    assert unsealed_values(tables_url, NEW) == []
    with Session(engine) as db:
        contexts = [contents(db, task.agent_id).context for task in (*plain, *old)]
    assert [json.loads(context or "")["text"] for context in contexts] == [
        *(f"plain {number}" for number in range(3)),
        *(f"old {number}" for number in range(4)),
    ]


async def test_a_task_whose_key_is_missing_fails_by_its_fingerprint_and_others_run(
    harness: ax.testing.AsyncHarness,
) -> None:
    lost = await ax.enqueue("echo", {"text": "a"})
    ax.CONF.encryption_keys = NEW
    other = await ax.enqueue("echo", {"text": "b"})
    await harness.run_all()
    with pytest.raises(ax.TaskFailedError, match=f"fingerprint is {fingerprint(OLD)}"):
        await ax.get_result(lost)
    assert await ax.get_result(other) == "b"
    with pytest.raises(ax.EncryptionKeyError, match=fingerprint(NEW)):
        ax.CONF.encryption_keys = OLD
        await ax.get_result(other)
