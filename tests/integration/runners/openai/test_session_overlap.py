"""A warning about a session that two running tasks use at once, and none where nothing can mix."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents import Agent, Runner, SQLiteSession, function_tool
from agents.extensions.memory import SQLAlchemySession
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import event, update
from sqlalchemy.ext.asyncio import create_async_engine

import agentexec as ax
from agentexec.activity.changes import session_use
from agentexec.activity.changes.session_use import MAX_CONSIDERED, note_session_use
from agentexec.activity.models import Activity
from agentexec.runners.openai.session_overlap import identify
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.WARNING, "agentexec.runners")

    def texts() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "agentexec.runners"]

    return texts


def session(tmp_path: Path, session_id: str = "chat-7") -> SQLiteSession:
    return SQLiteSession(session_id, tmp_path / "sessions.db")


async def chat(task: ReplayableTask, used: Any, model: Any = None) -> None:
    """Run an attempt of a task that uses a session; the task stays RUNNING, as if it had more to do."""
    agent = Agent("Helper", model=model or ScriptedModel([[assistant_message("Hello.")]]))
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Hi.", session=used))


def set_row(task: ReplayableTask, **values: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(**values))


async def test_a_session_in_use_by_another_running_task_is_warned_about_with_both_names(
    warnings: Any, tmp_path: Path
) -> None:
    first, second = ReplayableTask(), ReplayableTask()
    set_row(second, agent_type="answer")
    await chat(first, session(tmp_path))
    assert warnings() == []
    await chat(second, session(tmp_path))
    text = (
        f"The session 'chat-7' is also used by research ({first.agent_id}), running now; their items may mix in its "
        "history. Let one task at a time use a session: enqueue the next one when the last has ended."
    )
    assert warnings() == [f"Task answer ({second.agent_id}): {text}"]
    assert text in second.messages()
    assert text not in first.messages()


async def test_of_tasks_that_start_at_the_same_moment_at_least_one_is_warned_about(
    warnings: Any, tmp_path: Path
) -> None:
    for number in range(5):
        tasks = [ReplayableTask(), ReplayableTask()]
        await asyncio.gather(*(chat(task, session(tmp_path, f"chat-{number}")) for task in tasks))
        assert any(f"'chat-{number}'" in text for text in warnings())


@pytest.mark.parametrize(
    "status", [ax.Status.COMPLETE, ax.Status.ERROR, ax.Status.CANCELED, ax.Status.QUEUED]
)
async def test_a_task_that_has_ended_or_waits_is_not_warned_about(
    warnings: Any, tmp_path: Path, status: ax.Status
) -> None:
    first, second = ReplayableTask(), ReplayableTask()
    await chat(first, session(tmp_path))
    set_row(first, status=status)
    await chat(second, session(tmp_path))
    assert warnings() == []


async def test_a_task_does_not_warn_about_itself(warnings: Any, tmp_path: Path) -> None:
    """A second attempt, a second run, and a run inside a tool of the first."""
    task = ReplayableTask()
    inner = Agent("Inner", model=ScriptedModel([[assistant_message("Inside.")]]))

    @function_tool
    async def ask() -> str:
        """Ask another agent."""
        return str((await Runner.run(inner, "Hi.", session=session(tmp_path))).final_output)

    async def handler() -> None:
        turns = [[function_call("ask", {}, call_id="call_1")], [assistant_message("Done.")]]
        outer = Agent("Outer", model=ScriptedModel(turns), tools=[ask])
        runner = ax.OpenAIRunner(task.agent_id)
        await runner.run(outer, "Hi.", session=session(tmp_path))
        await runner.run(
            Agent("Next", model=ScriptedModel([[assistant_message("Bye.")]])),
            "Hi.",
            session=session(tmp_path),
        )

    await task.attempt(handler)
    await task.attempt(lambda: asyncio.sleep(0))
    again = Agent("Again", model=ScriptedModel([[assistant_message("Hello.")]]))
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(again, "Hi.", session=session(tmp_path)))
    assert warnings() == []


async def test_a_child_and_its_parent_may_share_a_session_but_two_children_may_not(
    warnings: Any, tmp_path: Path
) -> None:
    parent, child, sibling = ReplayableTask(), ReplayableTask(), ReplayableTask()
    for task in (child, sibling):
        set_row(task, parent_id=parent.agent_id)
    await chat(parent, session(tmp_path))
    await chat(child, session(tmp_path))
    await chat(parent, session(tmp_path), ScriptedModel([]))
    assert warnings() == []
    await chat(sibling, session(tmp_path))
    [text] = warnings()
    assert str(child.agent_id) in text
    assert str(parent.agent_id) not in text


async def test_sessions_with_another_id_or_store_are_not_warned_about(warnings: Any, tmp_path: Path) -> None:
    await chat(ReplayableTask(), session(tmp_path))
    await chat(ReplayableTask(), session(tmp_path, "chat-8"))
    await chat(ReplayableTask(), SQLiteSession("chat-7", tmp_path / "others.db"))
    await chat(ReplayableTask(), SQLiteSession("chat-7"))
    await chat(ReplayableTask(), SQLiteSession("chat-7"))
    assert warnings() == []


async def test_a_session_costs_one_look_and_a_task_without_one_none(tmp_path: Path) -> None:
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(RUNTIME.engine, "before_cursor_execute", note)
    calls: list[UUID] = []
    noted = note_session_use

    def counting(engine: Any, agent_id: UUID, digest: str) -> Any:
        calls.append(agent_id)
        return noted(engine, agent_id, digest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentexec.runners.openai.session_overlap.note_session_use", counting)
        with_session, without = ReplayableTask(), ReplayableTask()
        statements.clear()
        await chat(without, None)
        assert calls == []
        assert not any("activity_label" in statement for statement in statements)

        async def handler() -> None:
            runner = ax.OpenAIRunner(with_session.agent_id)
            for name in ("A", "B"):
                agent = Agent(name, model=ScriptedModel([[assistant_message("Hello.")]]))
                await runner.run(agent, "Hi.", session=session(tmp_path))

        await with_session.attempt(handler)
    assert calls == [with_session.agent_id]


def test_a_look_considers_a_bounded_number_of_tasks_however_many_used_the_session() -> None:
    oldest = ReplayableTask()
    oldest.take_over()
    assert note_session_use(RUNTIME.engine, oldest.agent_id, "d") == []
    latest = [ReplayableTask() for _ in range(MAX_CONSIDERED)]
    for task in latest[:-1]:
        assert [found.agent_id for found in note_session_use(RUNTIME.engine, task.agent_id, "d")] == [
            oldest.agent_id
        ]
    assert note_session_use(RUNTIME.engine, latest[-1].agent_id, "d") == []


def test_the_note_is_not_a_value_of_the_metadata() -> None:
    task = ReplayableTask()
    note_session_use(RUNTIME.engine, task.agent_id, "d")
    note_session_use(RUNTIME.engine, task.agent_id, "d")
    assert session_use.PREFIX not in str(task.detail().metadata)


class OwnSession:
    """A session of the user's own, as the SDK's protocol asks for it."""

    def __init__(self, session_id: str, url: str = "redis://a") -> None:
        self.session_id = session_id
        self.url = url


class Wrapping:
    def __init__(self, inner: Any) -> None:
        self.underlying_session = inner


class Nameless:
    @property
    def session_id(self) -> str:
        raise ValueError("no id yet")


def test_a_session_is_identified_by_its_id_and_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = identify(SQLiteSession("s", "sessions.db"))
    assert file == identify(SQLiteSession("s", tmp_path / "sessions.db"))
    assert file == identify(Wrapping(Wrapping(SQLiteSession("s", tmp_path / "x" / ".." / "sessions.db"))))
    assert file != identify(SQLiteSession("s", "sessions.db", messages_table="others"))
    in_memory = SQLiteSession("s")
    assert identify(in_memory) == identify(in_memory) != identify(SQLiteSession("s"))
    servers = [f"postgresql+psycopg://{user}@db.example/app" for user in ("ann:one", "bob:two")]
    first, second = (SQLAlchemySession("s", engine=create_async_engine(url)) for url in servers)
    assert identify(first) == identify(second)
    assert "one" not in str(identify(first))
    other = create_async_engine("postgresql+psycopg://ann:one@db.example/other")
    assert identify(first) != identify(SQLAlchemySession("s", engine=other))
    assert identify(OwnSession("s")) == identify(OwnSession("s")) != identify(OwnSession("t"))
    assert identify(OwnSession("s")) != identify(OwnSession("s", "redis://b"))
    assert identify(Nameless()) is None
    assert identify(OwnSession("")) is None


async def test_a_secret_in_a_sessions_id_is_not_logged(warnings: Any, tmp_path: Path) -> None:
    name = f"sk-{uuid4().hex}"
    await chat(ReplayableTask(), session(tmp_path, name))
    await chat(ReplayableTask(), session(tmp_path, name))
    [text] = warnings()
    assert name not in text
