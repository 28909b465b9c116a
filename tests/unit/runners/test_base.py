"""Runners without a model: prompts, tools, and the destination of reports."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents import FunctionTool
from agents.tool_context import ToolContext
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runners import base
from agentexec.runtime import RUNTIME


class EchoRunner(ax.BaseAgentRunner):
    """A runner as a user writes one."""

    async def run(self, agent: Any, input: str) -> str:
        await self.report("Echoing", 10)
        return f"{agent}: {input}"


class WriterDouble:
    """A worker's writer that keeps the reports it gets, and the thread of each."""

    def __init__(self, *held: UUID) -> None:
        self._held = held
        self.reports: list[tuple[UUID, str, int | None, threading.Thread]] = []

    def holds(self, agent_id: UUID) -> bool:
        return agent_id in self._held

    def report_progress(
        self, agent_id: UUID, epoch: int | None, message: str, percentage: int | None
    ) -> None:
        self.reports.append((agent_id, message, percentage, threading.current_thread()))

    def flush(self, timeout: float) -> bool:
        return True


@pytest.fixture(autouse=True)
def database(tmp_path: Path) -> Iterator[None]:
    ax.configure(database_url=f"sqlite:///{tmp_path / 'test.db'}")
    ax.Base.metadata.create_all(RUNTIME.engine)
    yield
    RUNTIME.progress_writer = None
    RUNTIME.close()


def reports_of(agent_id: UUID) -> list[tuple[str, int | None]]:
    """Return the reports, without the line that `create` writes."""
    with Session(RUNTIME.engine) as db:
        return [(log.message, log.percentage) for log in ax.activity.detail(db, agent_id=agent_id).logs][1:]


async def call(tool: FunctionTool, **arguments: Any) -> Any:
    text = json.dumps(arguments)
    context = ToolContext(context=None, tool_name=tool.name, tool_call_id="call_1", tool_arguments=text)
    return await tool.on_invoke_tool(context, text)


async def test_a_custom_runner_only_needs_run() -> None:
    agent_id = ax.activity.create("echo")
    assert await EchoRunner(agent_id).run("agent", "hello") == "agent: hello"
    assert reports_of(agent_id) == [("Echoing", 10)]


def test_a_runner_without_run_cannot_be_made() -> None:
    class Unfinished(ax.BaseAgentRunner):
        pass

    with pytest.raises(TypeError, match="run"):
        Unfinished(uuid4())  # ty: ignore[abstract-class-instantiation]


@pytest.mark.parametrize("kind", [EchoRunner, ax.OpenAIRunner])
def test_an_agent_id_may_be_a_string(kind: type[ax.BaseAgentRunner]) -> None:
    agent_id = uuid4()
    assert kind(str(agent_id)).agent_id == agent_id
    assert kind(agent_id=agent_id).agent_id == agent_id
    with pytest.raises(ax.UsageError, match="is not an agent_id"):
        kind("no id")


def test_the_prompt_names_the_tool() -> None:
    runner = ax.OpenAIRunner(uuid4())
    assert runner.tools.report_status.name in runner.prompts.report_status


def test_the_prompt_can_be_replaced() -> None:
    assert ax.OpenAIRunner(uuid4(), report_status_prompt="Say it.").prompts.report_status == "Say it."
    assert EchoRunner(uuid4(), report_status_prompt="").prompts.report_status == ""


async def test_a_custom_runners_tool_is_a_coroutine_function() -> None:
    agent_id = ax.activity.create("echo")
    tool = EchoRunner(agent_id).tools.report_status
    assert inspect.iscoroutinefunction(tool)
    await tool("Working", 20)
    assert reports_of(agent_id) == [("Working", 20)]


def test_the_sdks_tool_takes_a_message_and_a_percentage() -> None:
    tool = ax.OpenAIRunner(uuid4()).tools.report_status
    properties = tool.params_json_schema["properties"]
    assert {name: field["type"] for name, field in properties.items()} == {
        "message": "string",
        "percentage": "integer",
    }
    assert tool.params_json_schema["required"] == ["message", "percentage"]
    assert all(field["description"] for field in properties.values())
    assert tool.description


@pytest.mark.parametrize(("told", "kept"), [(140, 100), (-3, 0), (55, 55)])
async def test_a_percentage_is_clamped_to_its_range(told: int, kept: int) -> None:
    agent_id = ax.activity.create("research")
    tool = ax.OpenAIRunner(agent_id).tools.report_status
    assert await call(tool, message="Reading", percentage=told) == "Reported."
    assert reports_of(agent_id) == [("Reading", kept)]


async def test_two_runners_report_to_their_own_tasks() -> None:
    first, second = ax.activity.create("research"), ax.activity.create("research")
    tools = [ax.OpenAIRunner(agent_id).tools.report_status for agent_id in (first, second)]
    for number, tool in enumerate(tools):
        await call(tool, message=f"Task {number}", percentage=number)
    assert (reports_of(first), reports_of(second)) == ([("Task 0", 0)], [("Task 1", 1)])


async def test_a_lost_report_does_not_stop_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    runner = ax.OpenAIRunner(uuid4())  # there is no such activity
    assert "go on without it" in await call(runner.tools.report_status, message="Reading", percentage=5)
    assert str(runner.agent_id) in caplog.text
    with pytest.raises(ax.ActivityNotFoundError):
        await runner.report("Reading")


async def test_an_unexpected_error_of_a_report_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(base, "update", broken)
    tool = ax.OpenAIRunner(uuid4()).tools.report_status
    assert "go on without it" in await call(tool, message="Reading", percentage=5)
    assert "Traceback" in caplog.text


async def test_in_the_tasks_worker_a_report_goes_to_the_writer_at_once() -> None:
    agent_id = uuid4()
    writer = RUNTIME.progress_writer = WriterDouble(agent_id)
    await ax.OpenAIRunner(agent_id).report("Reading", 30)
    assert writer.reports == [(agent_id, "Reading", 30, threading.current_thread())]


async def test_elsewhere_a_report_leaves_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(base, "update", lambda *_: threads.append(threading.current_thread()))
    await ax.OpenAIRunner(uuid4()).report("In a web process")
    RUNTIME.progress_writer = WriterDouble(uuid4())
    await ax.OpenAIRunner(uuid4()).report("In a worker, on another task")
    assert len(threads) == 2
    assert threading.current_thread() not in threads
