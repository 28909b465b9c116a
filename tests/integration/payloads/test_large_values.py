"""With a payload store, no large value is in the database, whichever store has written it, and every reader gets it back."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from agents import Agent, function_tool
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.queries.contents import contents
from agentexec.journal.history import steps
from agentexec.payloads import sealing
from agentexec.runtime import RUNTIME
from tests.stores import KEY, stored_values
from tests.waiting import wait_until_async

LARGE = "x" * 5000

pool = ax.Pool()


@function_tool
async def read(name: str) -> str:
    """Read a file."""
    return f"{name} {LARGE}"


@pool.task("ask")
async def ask(*, agent_id: UUID, context: dict[str, str]) -> str:
    """Talk to the model, and ask another task."""
    agent = Agent("Reader", instructions="Answer.", tools=[read])
    answer = await ax.OpenAIRunner(agent_id).run(agent, context["text"])
    child = await ax.enqueue("echo", {"text": context["text"]})
    return f"{answer.final_output} {await ax.get_result(child)}"


@pool.task("echo")
async def echo(*, agent_id: UUID, context: dict[str, str]) -> str:
    return context["text"]


@pool.task("flaky", retries=1, backoff=0.01)
async def flaky(*, agent_id: UUID, context: dict[str, str]) -> str:
    """Fail after a large step, and need it again."""
    agent = Agent("Reader", instructions="Answer.", tools=[read])
    answer = await ax.OpenAIRunner(agent_id).run(agent, context["text"])
    if not context["text"] or not FAILED:
        FAILED.append(True)
        raise RuntimeError("once")
    return str(answer.final_output)


FAILED: list[bool] = []


@pytest.fixture(autouse=True, params=["plain", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "payloads"
    folder.mkdir()
    monkeypatch.setattr(ax.CONF, "payload_store", folder.as_uri())
    monkeypatch.setattr(ax.CONF, "payload_threshold", 1024)
    monkeypatch.setattr(ax.CONF, "encryption_keys", KEY if request.param == "encrypted" else None)
    yield folder
    RUNTIME.close()


@pytest.fixture
async def harness(tables_url: str) -> AsyncIterator[ax.testing.AsyncHarness]:
    async with ax.testing.harness(pool, engine=create_engine(tables_url)) as harness:
        yield harness


def written(folder: Path) -> set[str]:
    """Return the kinds of values in the store."""
    return {path.name.partition("-")[0] for path in folder.rglob("*-*") if path.is_file()}


def move(folder: Path, target: Path) -> Path:
    return folder.rename(target)


async def test_large_values_are_in_the_store_and_every_reader_gets_them(
    harness: ax.testing.AsyncHarness, store: Path
) -> None:
    harness.model.call_tool("read", {"name": "a"}).say("Done.")
    task = await ax.enqueue("ask", {"text": LARGE})
    small = ax.enqueue_sync("echo", {"text": "small"})
    large = ax.enqueue_sync("echo", {"text": LARGE})
    many = await ax.enqueue_many("echo", [{"text": LARGE}, {"text": "b"}])
    with Session(ax.get_engine()) as db:
        joined = ax.enqueue_sync("echo", {"text": LARGE}, session=db)
        db.commit()
    await harness.run_all()
    assert await ax.get_result(task) == f"Done. {LARGE}"
    assert await ax.get_result(small) == "small"
    assert [await ax.get_result(each) for each in many] == [LARGE, "b"]
    assert ax.get_result_sync(joined) == ax.get_result_sync(large) == LARGE
    assert await ax.gather(large, small) == [LARGE, "small"]
    engine = ax.get_engine()
    values = stored_values(engine)
    # A history that grows from call to call is in the store with all that is large.
    assert all(len(value) < 2500 for column in values.values() for value in column)
    assert written(store) == {"context", "journal", "result"}
    with Session(engine) as db:
        assert LARGE in str(contents(db, task.agent_id))


async def test_a_retry_reads_what_the_first_attempt_recorded(harness: ax.testing.AsyncHarness) -> None:
    FAILED.clear()
    harness.model.call_tool("read", {"name": "a"}).say("Done.")
    task = await ax.enqueue("flaky", {"text": LARGE})
    await harness.run_all()
    assert await ax.get_result(task) == "Done."


async def test_what_prints_no_large_value_fetches_none(harness: ax.testing.AsyncHarness, store: Path) -> None:
    harness.model.call_tool("read", {"name": "a"}).say("Done.")
    task = await ax.enqueue("ask", {"text": LARGE})
    await harness.run_all()
    moved = move(store, store.with_name("elsewhere"))
    with Session(ax.get_engine()) as db:
        assert ax.activity.list(db, 1, 10).total == 2
        assert ax.activity.detail(db, task.agent_id).status is ax.Status.COMPLETE
        assert len(steps(db, task.agent_id)) >= 4
        assert "The payload store is away" in str(contents(db, task.agent_id))
    with pytest.raises(ax.UnavailableError, match="The payload store is away"):
        await ax.get_result(task)
    move(moved, store)
    assert LARGE in await ax.get_result(task)


async def test_a_task_waits_for_a_store_that_is_away(
    harness: ax.testing.AsyncHarness, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness.model.call_tool("read", {"name": "a"}).say("Done.")
    task = await ax.enqueue("ask", {"text": LARGE})
    moved = move(store, store.with_name("elsewhere"))

    async def bring_back() -> None:
        await wait_until_async(lambda: "waits until it is back" in caplog.text)
        move(moved, store)

    await asyncio.gather(harness.run_all(), bring_back())
    assert await ax.get_result(task) == f"Done. {LARGE}"
    with Session(ax.get_engine()) as db:
        detail = ax.activity.detail(db, task.agent_id)
    assert detail.attempt == 1


async def test_values_are_fetched_off_the_event_loop(
    harness: ax.testing.AsyncHarness, monkeypatch: pytest.MonkeyPatch
) -> None:

    on_loop: list[str] = []
    fetch = sealing.open_payload

    def watched(place: sealing.Place) -> str:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return fetch(place)
        if "harness.py" not in str(
            traceback.extract_stack()
        ):  # the harness of tests reads results on its loop
            on_loop.append(str(place))
        return fetch(place)

    monkeypatch.setattr(sealing, "open_payload", watched)
    FAILED.clear()
    harness.model.call_tool("read", {"name": "a"}).say("Done.")
    first, second = await ax.enqueue("flaky", {"text": LARGE}), await ax.enqueue("echo", {"text": LARGE})
    await harness.run_all()
    assert await ax.gather(first, second) == ["Done.", LARGE]
    assert await ax.get_result(second) == LARGE
    assert on_loop == []
