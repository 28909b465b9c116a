"""Large values go with what they belong to, and never what others still refer to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from agents import Agent, function_tool
from sqlalchemy import create_engine, delete, func, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import ActivityResult, Meta
from agentexec.arguments.encryption_keys import fingerprint
from agentexec.db.clock import utc_now
from agentexec.journal.models import JournalEntry
from agentexec.payloads.deployment import NAME, Deployment
from agentexec.payloads.rotation import rotate
from agentexec.runtime import RUNTIME
from agentexec.worker.expiry import expire
from agentexec.worker.payload_sweep import MIN_AGE, SHARDS, sweep
from tests.stores import KEY

LARGE = "x" * 3000
ALL = timedelta(0)

pool = ax.Pool()


@function_tool
async def read(name: str) -> str:
    """Read a file."""
    return f"{name} {LARGE}"


@pool.task("ask")
async def ask(*, agent_id: UUID, context: dict[str, str]) -> str:
    agent = Agent("Reader", instructions="Answer.", tools=[read])
    return f"{(await ax.OpenAIRunner(agent_id).run(agent, context['text'])).final_output} {LARGE}"


@pool.task("support")
async def support(*, agent_id: UUID, context: ax.Turn) -> str:
    agent = Agent("Support", instructions="Answer.")
    answer = await ax.OpenAIRunner(agent_id).run(agent, context.text, session=context.session)
    return str(answer.final_output)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "payloads"
    folder.mkdir()
    monkeypatch.setattr(ax.CONF, "payload_store", folder.as_uri())
    monkeypatch.setattr(ax.CONF, "payload_threshold", 1024)
    monkeypatch.setattr(ax.CONF, "encryption_keys", None)
    yield folder
    RUNTIME.close()


@pytest.fixture
async def harness(sqlite_tables: str) -> AsyncIterator[ax.testing.AsyncHarness]:
    async with ax.testing.harness(pool, engine=create_engine(sqlite_tables)) as harness:
        yield harness


def files(folder: Path, *kinds: str) -> list[Path]:
    return [
        path
        for path in folder.rglob("*-*")
        if path.is_file() and (not kinds or path.name.startswith(tuple(kinds)))
    ]


async def prune() -> int:
    """Prune in a thread: beside an event loop the files are removed later."""

    def in_thread() -> int:
        with Session(ax.get_engine()) as db:
            return ax.activity.prune(db, ALL)

    return await asyncio.to_thread(in_thread)


async def test_values_go_with_their_task_and_a_fork_keeps_its_own(
    harness: ax.testing.AsyncHarness, store: Path
) -> None:
    harness.model.call_tool("read", {"name": "a"}).say("Done.")
    first = await ax.enqueue("ask", {"text": LARGE})
    await harness.run_all()
    assert {path.parent.name for path in files(store)} == {first.agent_id.hex}
    fork = await ax.fork(first, at=2)
    assert await prune() == 1
    assert {path.parent.name for path in files(store)} == {fork.agent_id.hex}
    harness.model.say("Again.")
    await harness.run_all()
    assert await ax.get_result(fork) == f"Again. {LARGE}"
    with Session(ax.get_engine()) as db:
        # Among them the output of the tool, which the fork did not call.
        facts = db.scalars(select(JournalEntry.value).where(JournalEntry.agent_id == fork.agent_id)).all()
    assert any(f"a {LARGE}" in fact for fact in facts)
    expire(ax.get_engine(), utc_now() + timedelta(days=2))
    assert files(store, "result") == []
    assert files(store, "journal")
    with Session(ax.get_engine()) as db:
        assert db.scalar(select(func.count()).select_from(ActivityResult)) == 0
    assert await prune() == 1
    assert files(store) == []


async def test_items_go_with_their_conversation(harness: ax.testing.AsyncHarness, store: Path) -> None:
    chat = ax.conversation("user:1", task="support")
    harness.model.say(LARGE).say("Short.")
    await chat.send("Hello.")
    await harness.run_all()
    await chat.send("Again.")
    await harness.run_all()
    assert LARGE in str(await chat.history())
    assert await prune() == 2
    assert files(store) == files(store, "item") != []
    assert LARGE in str(await chat.history())
    assert await chat.delete()
    assert files(store) == []


async def test_the_sweep_removes_only_old_values_of_no_task_of_its_own_deployment(
    harness: ax.testing.AsyncHarness, store: Path
) -> None:
    engine, now = ax.get_engine(), time.time()
    kept = await ax.enqueue("ask", {"text": LARGE})
    with Session(engine) as db:
        lost = await ax.enqueue("ask", {"text": LARGE}, session=db)
        db.rollback()
    mine = RUNTIME.deployment.id
    assert Deployment(engine).id == mine
    with Session(engine) as db:
        db.execute(delete(Meta).where(Meta.name == NAME))
        db.commit()
    assert Deployment(engine).id != mine

    def swept() -> int:
        return sum(sweep(RUNTIME, shard, now) for shard in range(SHARDS))

    assert swept() == 0
    for path in files(store):
        os.utime(path, (now - MIN_AGE - 60,) * 2)
    others = store / ("f" * 16 if mine != "f" * 16 else "e" * 16)
    (store / mine).rename(others)
    assert swept() == 0  # these belong to another deployment now
    others.rename(store / mine)
    assert swept() == 1
    assert {path.parent.name for path in files(store)} == {kept.agent_id.hex}
    assert lost.agent_id != kept.agent_id


async def test_rotation_encrypts_values_in_the_store_where_they_are(
    harness: ax.testing.AsyncHarness, store: Path
) -> None:
    task = await ax.enqueue("ask", {"text": LARGE})
    [file] = files(store)
    assert LARGE in file.read_text()
    ax.CONF.encryption_keys = KEY
    engine = ax.get_engine()
    url, ax.CONF.payload_store = ax.CONF.payload_store, None
    with pytest.raises(ax.PayloadLostError, match="no AGENTEXEC_PAYLOAD_STORE"):
        list(rotate(engine, ax.Base.metadata, fingerprint(KEY)))
    ax.CONF.payload_store = url
    assert sum(step.encrypted for step in rotate(engine, ax.Base.metadata, fingerprint(KEY))) == 1
    assert sum(step.encrypted for step in rotate(engine, ax.Base.metadata, fingerprint(KEY))) == 0
    assert files(store) == [file]
    assert file.read_bytes().startswith(b"encrypted:1:")
    harness.model.call_tool("read", {"name": "a"}).say("Done.")
    await harness.run_all()
    assert await ax.get_result(task) == f"Done. {LARGE}"
