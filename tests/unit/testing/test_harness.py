"""`ax.testing.harness`: tasks run inline, against a scripted model."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool
from agents.run import get_default_agent_runner
from openai import AsyncOpenAI
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.waiting import patient, wait_until

pool = ax.Pool()


class Company(BaseModel):
    company: str = "Acme"


class Finding(BaseModel):
    summary: str


@function_tool
async def search(query: str) -> str:
    """Search."""
    return f"found {query}"


@pool.task("inquire")
async def inquire(agent_id: UUID, context: Company) -> str:
    runner = ax.OpenAIRunner(agent_id)
    agent = Agent(name="Researcher", model="gpt-4o", tools=[search, runner.tools.report_status])
    result = await runner.run(agent, input=f"Research {context.company}.")
    return result.final_output


@function_tool(needs_approval=True)
async def charge(cents: int) -> str:
    """Charge the customer."""
    return f"charged {cents}"


@pool.task("sells")
async def sells(agent_id: UUID, context: Company) -> str:
    runner = ax.OpenAIRunner(agent_id, approval_timeout=3600)
    return (await runner.run(Agent(name="Till", tools=[charge]), input="Sell.")).final_output


@pool.task("streams")
async def streams(agent_id: UUID, context: Company) -> str:
    result = await ax.OpenAIRunner(agent_id).run_streamed(Agent(name="Streamer"), input="Go.")
    async for _ in result.stream_events():
        pass
    return result.final_output


@pool.task("nests")
async def nests(agent_id: UUID, context: Company) -> str:
    """An agent used as a tool with its own model, and a tool that starts a run."""
    client = AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
    inner = Agent(name="Inner", model=OpenAIResponsesModel("gpt-4o", client))

    @function_tool
    async def asks() -> str:
        return (await Runner.run(Agent(name="Third", model="gpt-4o-mini"), "Third?")).final_output

    outer = Agent(name="Outer", tools=[inner.as_tool("inner", "Ask it."), asks])
    return (await Runner.run(outer, "Outer?", run_config=RunConfig(model="o3"))).final_output


@pool.task("structured")
async def structured(agent_id: UUID, context: Company) -> Finding:
    result = await ax.OpenAIRunner(agent_id).run(Agent(name="A", output_type=Finding))
    return result.final_output


failures: list[int] = []


@pool.task("unsteady", retries=3)
async def flaky(agent_id: UUID, context: Company) -> str:
    failures.append(1)
    if len(failures) < 3:
        raise RuntimeError(f"try {len(failures)}")
    return "at last"


@pool.task("fan_out")
async def fan_out(agent_id: UUID, context: Company) -> None:
    await ax.enqueue("adds", {"company": "one"}, delay=3600)
    await ax.enqueue("adds", {"company": "two"}, queue_name="other")


@pool.task("adds")
def add(agent_id: UUID, context: Company) -> str:
    ax.activity.update(agent_id, f"Adding {context.company}", percentage=50)
    return context.company


@pool.task("gathers")
async def gathers(agent_id: UUID, context: Company) -> str:
    tasks = [await ax.enqueue("adds", {"company": name}) for name in "abc"]
    await ax.enqueue("adds", {"company": "left alone"})
    failing = await ax.enqueue("unsteady", {})
    return "".join(await ax.gather(*tasks, timeout=10)) + await ax.get_result(failing, timeout=patient(10))


@pool.task("canceled")
async def canceled(agent_id: UUID, context: Company) -> None:
    await ax.cancel(agent_id)
    await asyncio.sleep(60)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    failures.clear()


def test_an_agent_runs_against_the_script() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("search", {"query": "Acme"}).say("Acme makes anvils.")
        task = harness.run("inquire", Company(company="Acme"))
        assert (task.status, task.result, task.error) == (ax.Status.COMPLETE, "Acme makes anvils.", None)
        assert task.attempts == 1
        assert task.messages == ["Waiting to start.", "Task started.", "Task completed successfully."]
        first, second = harness.model.calls
        assert first.input == "Research Acme." or first.input[0]["content"] == "Research Acme."
        assert [tool.name for tool in first.tools] == ["search", "report_status"]
        assert second.input[-1]["output"] == "found Acme"


def test_an_agents_own_reports_are_in_the_log() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.call_tools(
            ("report_status", {"message": "Looking", "percentage": 30}), ("search", {"query": "x"})
        ).say("Done.")
        task = harness.run("inquire")
    assert [(line.message, line.percentage) for line in task.log][2] == ("Looking", 30)
    assert task.percentage == 100


def test_every_agent_asks_the_script() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.call_tools(("inner", {"input": "?"})).say("inner says").call_tool("asks").say(
            "third says"
        ).say("outer says")
        assert harness.run("nests").result == "outer says"
        assert harness.model.remaining_steps == 0
        assert len(harness.model.calls) == 5


def test_the_script_answers_streamed_runs_and_structured_outputs() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.say("streamed")
        assert harness.run("streams").result == "streamed"
        harness.model.say(Finding(summary="small"))
        assert harness.run("structured").result == Finding(summary="small")
        assert harness.model.calls[0].streamed


def test_a_task_waits_for_the_approval_that_the_test_gives() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("charge", {"cents": 5}).say("Sold.")
        task = harness.run("sells")
        assert (task.status, task.attempts) == (ax.Status.QUEUED, 0)
        assert task.log[-1].message == 'Waiting for approval: charge({"cents":5})'
        [question] = harness.approvals
        assert ax.approve_sync(task.agent_id, question.call_id)
        assert harness.approvals == []
        [task] = harness.run_all()
        assert (task.status, task.result, task.attempts) == (ax.Status.COMPLETE, "Sold.", 1)


def test_a_script_that_is_too_short_fails_the_test() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("search", {"query": "Acme"})
        with pytest.raises(
            ax.testing.ScriptEndedError, match=r"Model call 2 found no answer: 1 were given.*found Acme"
        ):
            harness.run("inquire")
        # The model is scripted even for tests that do not use `harness.model`.
    with ax.testing.harness(pool) as harness, pytest.raises(ax.testing.ScriptEndedError):
        harness.run("streams")


def test_a_model_error_fails_the_task() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.fail(ValueError("the model is ill"))
        task = harness.run("inquire")
    assert task.status is ax.Status.ERROR
    assert task.error is not None
    assert task.error.startswith("ValueError: the model is ill")


def test_retries_are_run_without_sleeping() -> None:
    started = time.monotonic()
    with ax.testing.harness(pool) as harness:
        task = harness.run("unsteady")
    assert (task.result, task.attempts) == ("at last", 3)
    assert "Attempt 2 failed with RuntimeError: try 2" in task.messages[4]
    assert time.monotonic() - started < patient(5)


def test_run_all_runs_the_tasks_that_a_task_enqueues() -> None:
    with ax.testing.harness(pool) as harness:
        harness.run("fan_out")
        assert [task.status for task in harness.tasks] == ["complete", "queued", "queued"]
        assert [task.result for task in harness.run_all()] == ["two", "one"]
        assert harness.run_all() == []
        assert harness.tasks[1].messages[2] == "Adding one"


def test_a_task_that_another_one_waits_for_runs_beside_it() -> None:
    with ax.testing.harness(pool) as harness:
        task = harness.run("gathers")
        assert task.result == "abcat last", task.error
        assert [added.status for added in harness.tasks if added.task_name == "adds"] == ["complete"] * 3 + [
            "queued"
        ]


def test_a_canceled_task_is_stopped() -> None:
    with ax.testing.harness(pool) as harness:
        task = harness.run("canceled")
        assert (task.status, task.messages[-1]) == (ax.Status.CANCELED, "Canceled.")
        queued = harness.enqueue("adds")
        ax.cancel_sync(queued)
        assert harness.run_all() == []


def test_mistakes_are_reported() -> None:
    with ax.testing.harness(pool) as harness:
        with pytest.raises(ax.UnknownTaskError, match="no task named reserch"):
            harness.run("reserch")
        with pytest.raises(ax.ContextInvalidError):
            harness.run("adds", {"company": 7})


async def test_the_harness_works_in_an_async_test() -> None:
    loop = asyncio.get_running_loop()
    seen: list[Any] = []
    own = ax.Pool()

    @own.task("where")
    async def where(agent_id: UUID, context: Company) -> None:
        seen.append(asyncio.get_running_loop())

    with pytest.raises(ax.UsageError, match="async with"), ax.testing.harness(own):
        pass
    async with ax.testing.harness(own) as harness:
        assert (await harness.run("where")).status is ax.Status.COMPLETE
        await harness.enqueue("where")
        assert len(await harness.run_all()) == 1
    assert seen == [loop, loop]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ax.configure(database_url=f"sqlite:///{tmp_path / 'own.db'}")
    engine, runner, threads = RUNTIME.engine, get_default_agent_runner(), set(threading.enumerate())
    with ax.testing.harness(pool) as harness:
        harness.model.say("x")
        harness.run("inquire")
        assert RUNTIME.engine is not engine
    assert RUNTIME.engine is engine
    assert RUNTIME.progress_writer is None
    assert get_default_agent_runner() is runner
    assert list(tmp_path.iterdir()) == []

    def left() -> list[str]:
        started = set(threading.enumerate()) - threads
        return [thread.name for thread in started if not thread.name.startswith("agentexec-edge")]

    wait_until(lambda: left() == [])  # a thread that is ending may need a moment
    RUNTIME.close()


def test_a_test_can_bring_its_own_database(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'own.db'}")
    own = ax.Pool()

    @own.task("in_transaction")
    async def in_transaction(agent_id: UUID, context: Company) -> None:
        with Session(engine) as session:
            await ax.enqueue("noted", {"company": "kept"}, session=session)
            session.commit()

    @own.task("noted")
    def noted(agent_id: UUID, context: Company) -> str:
        return context.company

    with ax.testing.harness(own, engine=engine) as harness:
        harness.run("in_transaction")
        assert [task.result for task in harness.run_all()] == ["kept"]


def test_a_result_above_the_limit_fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ax.Pool()

    @own.task("big", retries=3)
    async def big(agent_id: UUID, context: None) -> str:
        return "x" * 2000

    monkeypatch.setattr(ax.CONF, "max_payload_bytes", 1024)
    with ax.testing.harness(own) as harness:
        task = harness.run("big")
    assert task.status == ax.Status.ERROR
    assert task.attempts == 1
    assert "AGENTEXEC_MAX_PAYLOAD_BYTES=1024" in (task.error or "")


class PanicError(BaseException):
    """An error as extensions in Rust raise it."""


@pool.task("raises", retries=1)
async def raises(agent_id: UUID, context: dict[str, Any]) -> str:
    """Raise an odd error at a place."""

    def fail() -> None:
        raise {
            "SystemExit": SystemExit(2),
            "KeyboardInterrupt": KeyboardInterrupt(),
            "PanicError": PanicError("index out of bounds"),
            "CancelledError": asyncio.CancelledError(),
            "StopIteration": StopIteration(),
            "GeneratorExit": GeneratorExit(),
        }[context["error"]]

    async def fail_async() -> None:
        fail()

    match context["place"]:
        case "branch":
            await asyncio.gather(fail_async(), asyncio.sleep(0))
        case "thread":
            await asyncio.to_thread(fail)
        case "stop":
            asyncio.get_running_loop().stop()
        case tool:
            agent = Agent(name="Tools", tools=[function_tool(fail), function_tool(fail_async)])
            return (await ax.OpenAIRunner(agent_id).run(agent, input=f"Call {tool}.")).final_output
    return "done"


@pytest.mark.parametrize("place", ["branch", "thread"])
def test_an_odd_error_fails_its_task_and_not_the_test(place: str) -> None:
    with ax.testing.harness(pool) as harness:
        for error in (
            "SystemExit",
            "KeyboardInterrupt",
            "PanicError",
            "CancelledError",
            "StopIteration",
            "GeneratorExit",
        ):
            task = harness.run("raises", {"place": place, "error": error})
            assert (task.status, task.attempts) == (ax.Status.ERROR, 2)
            assert error in str(task.error).splitlines()[0]
        stops = harness.run("raises", {"place": "stop", "error": ""})
        assert "cannot stop the event loop" in str(stops.error)
        assert harness.run("inquire_nothing").result == "done"


@pytest.mark.parametrize("tool", ["fail", "fail_async"])
async def test_an_odd_error_of_a_tool_fails_its_task_or_is_told_to_the_model(tool: str) -> None:
    async with ax.testing.harness(pool) as harness:
        for error in ("SystemExit", "KeyboardInterrupt", "PanicError"):
            harness.model.call_tool(tool)  # the second attempt has the answer from the journal
            task = await harness.run("raises", {"place": tool, "error": error})
            assert (task.status, task.attempts) == (ax.Status.ERROR, 2), task.result
            assert error in str(task.error).splitlines()[0]
        for error in ("CancelledError", "StopIteration"):
            harness.model.call_tool(tool).say("The tool failed.")
            assert (await harness.run("raises", {"place": tool, "error": error})).result == "The tool failed."


@pool.task("inquire_nothing")
async def inquire_nothing(agent_id: UUID, context: dict[str, Any]) -> str:
    return "done"
