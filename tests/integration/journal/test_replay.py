"""Recorded runs as offline tests, and the check before a deploy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, function_tool

import agentexec as ax
from agentexec.client.run_records import dump_run, find_runs, read_run
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.runtime import RUNTIME
from agentexec.testing.run_replay import replay_record
from agentexec.values.presentation import Presenter

KEY = "sk-" + "a1" * 20


class Buyer:
    """A pool with one agent whose code can change, and what it has really done."""

    def __init__(
        self, prompt: str = "Buy at {}.", tool: str = "order", suffix: str = "", after: Any = None
    ) -> None:
        self.pool = ax.Pool()
        self.effects: list[str] = []
        buyer = self

        async def order(company: str) -> str:
            buyer.effects.append(company)
            return f"ordered with {KEY}" if company == "secret" else "ordered"

        agent = Agent("Buyer", instructions="Buy.", tools=[function_tool(order, name_override=tool)])

        @self.pool.task("buy")
        async def buy(agent_id: Any, context: dict[str, str]) -> str:
            runner = ax.OpenAIRunner(agent_id)
            rate = await runner.step("rate", buyer.rate)
            child = await ax.enqueue("tax", {"rate": rate})
            tax = await ax.get_result(child)
            result = await runner.run(agent, prompt.format(context["company"]))
            if after is not None:
                after()
            return f"{result.final_output}{suffix} {tax}"

        @self.pool.task("tax")
        async def tax(agent_id: Any, context: dict[str, int]) -> int:
            buyer.effects.append("tax")
            return context["rate"] * 2

    async def rate(self) -> int:
        self.effects.append("rate")
        return 7


def record(company: str = "Acme", *, fails: bool = False) -> dict[str, Any]:
    """Run the task for real, and return its record."""
    buyer = Buyer()
    with ax.testing.harness(buyer.pool) as harness:
        harness.model.call_tool("order", {"company": company})
        if fails:
            harness.model.fail(RuntimeError("away"))
        else:
            harness.model.say("bought")
        task = harness.run("buy", {"company": company})
        assert fails or task.result == "bought 14"
        with reading(RUNTIME.engine) as connection:
            return read_run(connection, task.agent_id, Presenter(set(), None).present)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return record()


@pytest.fixture
def file(tmp_path: Path, recorded: dict[str, Any]) -> Path:
    done = replay_record(recorded, Buyer().pool)
    assert done.divergence is None
    path = tmp_path / "run.json"
    path.write_text(dump_run({**recorded, "inputs": done.inputs}))
    return path


def test_a_recorded_run_is_replayed_without_calling_anything(file: Path) -> None:
    buyer = Buyer()
    assert ax.testing.replay(file, buyer.pool).result == "bought 14"
    assert buyer.effects == []


def test_a_record_without_inputs_is_compared_by_hashes(tmp_path: Path, recorded: dict[str, Any]) -> None:
    path = tmp_path / "run.json"
    path.write_text(dump_run(recorded))
    assert ax.testing.replay(path, Buyer().pool).result == "bought 14"
    with pytest.raises(ax.ReplayDivergedError, match=r"model call 1 of Buyer#1 (.|\n)*Sell at Acme"):
        ax.testing.replay(path, Buyer(prompt="Sell at {}.").pool)


def test_another_prompt_is_shown_as_a_difference_and_can_be_accepted(file: Path) -> None:
    buyer = Buyer(prompt="Sell at {}.", suffix="!")
    with pytest.raises(ax.ReplayDivergedError) as found:
        ax.testing.replay(file, buyer.pool)
    message = str(found.value)
    assert "model call 1 of Buyer#1 has another input than was recorded" in message
    assert '-    "content": "Buy at Acme.",' in message
    assert '+    "content": "Sell at Acme.",' in message
    before = file.read_text()
    assert ax.testing.replay(file, buyer.pool, update=True).result == "bought! 14"
    assert file.read_text() != before
    assert ax.testing.replay(file, buyer.pool).result == "bought! 14"
    assert buyer.effects == []


def test_another_result_is_a_divergence(file: Path) -> None:
    with pytest.raises(ax.ReplayDivergedError, match=r'the result differs(.|\n)*\+"bought, 14"'):
        ax.testing.replay(file, Buyer(suffix=",").pool)


def test_a_tool_that_is_gone_is_named(file: Path) -> None:
    with pytest.raises(ax.ReplayDivergedError, match="calls the tool order, which the agent does not have"):
        ax.testing.replay(file, Buyer(tool="purchase").pool)


def test_secrets_do_not_get_into_the_file() -> None:
    record_of_secret = record("secret")
    assert record_of_secret["redacted"]
    assert KEY not in dump_run(record_of_secret)
    done = replay_record(record_of_secret, Buyer().pool)
    assert done.divergence is None
    assert KEY not in json.dumps(done.inputs)


def test_a_run_that_failed_is_replayed_up_to_its_end() -> None:
    failed = record(fails=True)
    assert replay_record(failed, Buyer().pool).divergence is None
    assert replay_record(failed, Buyer(prompt="Sell at {}.").pool).divergence is not None


def test_a_check_stops_at_the_last_recorded_step(recorded: dict[str, Any]) -> None:
    after: list[str] = []
    buyer = Buyer(after=lambda: after.append("mailed"))
    assert replay_record(recorded, buyer.pool, any_input=True, stops=True).divergence is None
    assert after == []
    assert replay_record(recorded, Buyer(prompt="{}").pool, any_input=True, stops=True).divergence is not None


def test_runs_to_check_are_open_or_recent_and_have_a_journal() -> None:
    buyer = Buyer()
    with ax.testing.harness(buyer.pool) as harness:
        harness.model.call_tool("order", {"company": "a"}).say("bought")
        task = harness.run("buy", {"company": "a"}, metadata={"tenant": "acme"})
        with reading(RUNTIME.engine) as connection:
            now = utc_now()
            found = find_runs(connection, now.replace(year=2000), None, None, 10)
            assert [row.agent_id for row in found] == [task.agent_id], "the child has no journal"
            assert find_runs(connection, now, None, None, 10) == []
            assert find_runs(connection, now.replace(year=2000), None, {"tenant": "other"}, 10) == []


DAMAGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda run: run.update(format="other"),
    lambda run: run.update(version=99),
    lambda run: run.pop("facts"),
    lambda run: run.update(facts=[{"path": "x"}]),
    lambda run: run.update(agent_id="garbage"),
    lambda run: run.update(status="DONE"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(damage: Callable[[dict[str, Any]], Any], file: Path) -> None:
    run = json.loads(file.read_text())
    damage(run)
    file.write_text(json.dumps(run))
    with pytest.raises(ax.UsageError, match=r"run\.json"):
        ax.testing.replay(file, Buyer().pool)


async def test_a_replay_needs_its_own_event_loop(file: Path) -> None:
    with pytest.raises(ax.UsageError, match="event loop is running"):
        ax.testing.replay(file, Buyer().pool)
    assert (await asyncio.to_thread(ax.testing.replay, file, Buyer().pool)).result == "bought 14"


class Growing:
    """A pool whose handler gets one more step or wait, before its two steps, between them or after them."""

    def __init__(self, added: str = "", place: int = 0) -> None:
        self.pool = ax.Pool()

        async def said(text: str) -> str:
            return text

        async def grow(runner: ax.OpenAIRunner, at: int) -> None:
            if added == "step" and at == place:
                await runner.step("new", said, "new")
            elif added == "child" and at == place:
                await ax.get_result(await ax.enqueue("child", {}))
            elif added == "event" and at == place:
                await ax.wait_for_event("paid", "1")

        @self.pool.task("grow")
        async def handler(agent_id: Any, context: dict[str, str]) -> str:
            runner = ax.OpenAIRunner(agent_id)
            await grow(runner, 0)
            await runner.step("first", said, "1")
            await grow(runner, 1)
            await runner.step("second", said, "2")
            await grow(runner, 2)
            return "done"

        @self.pool.task("child")
        async def child(agent_id: Any, context: dict[str, str]) -> None: ...


@pytest.mark.parametrize("added", ["step", pytest.param("child", marks=pytest.mark.thorough), "event"])
def test_a_check_tells_an_added_step_from_a_divergence(added: str) -> None:
    with ax.testing.harness(Growing().pool) as harness:
        task = harness.run("grow", {})
        with reading(RUNTIME.engine) as connection:
            grown = read_run(connection, task.agent_id, Presenter(set(), None).present)
    for status in ("COMPLETE", "RUNNING"):
        for place, later in enumerate(["before step:first#1, step:second#1", "before step:second#1", None]):
            run = {**grown, "status": status}
            done = replay_record(run, Growing(added, place).pool, any_input=True, stops=True)  # type: ignore[arg-type]
            assert done.divergence is None
            assert (done.new_step is None) if later is None else (later in str(done.new_step))
    with pytest.raises(ax.ReplayDivergedError):
        raise replay_record(grown, Growing("step", 1).pool, any_input=True).divergence or AssertionError
