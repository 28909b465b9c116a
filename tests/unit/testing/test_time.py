"""`harness.advance`: what is due on the way happens at its moment, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from agents import Agent, function_tool

import agentexec as ax
from agentexec.db.clock import utc_now

pool = ax.Pool()
reminded: list[int] = []


@pool.task("note")
async def note(agent_id: UUID, context: dict[str, str]) -> str:
    return context["text"]


@function_tool(needs_approval=True)
async def wire(amount: int) -> str:
    """Wire money."""
    return f"wired {amount}"


@pool.task("pays", approvals=ax.ApprovalPolicy(reminder=600))
async def pays(agent_id: UUID, context: dict[str, int]) -> str:
    runner = ax.OpenAIRunner(agent_id, approval_timeout=3600)
    return (await runner.run(Agent(name="Clerk", tools=[wire]), input="Pay.")).final_output


@pool.on_approval
async def on_question(agent_id: UUID, context: ax.ApprovalRequest) -> None:
    reminded.append(context.reminder)


timetable = ax.Pool()
timetable.add_task("note", note)
timetable.add_schedule("hourly", "0 * * * *", task="note", context={"text": "hourly"})


def test_a_delayed_task_runs_at_its_moment_and_not_before() -> None:
    with ax.testing.harness(pool) as harness:
        late = harness.enqueue("note", {"text": "late"}, delay=1800)
        soon = harness.enqueue("note", {"text": "soon"}, delay=600)
        assert harness.advance(599) == []
        assert [task.agent_id for task in harness.advance(2)] == [soon.agent_id]
        assert harness.task(late).status is ax.Status.QUEUED
        assert "late" in [task.result for task in harness.advance(timedelta(minutes=20))]


def test_a_schedule_ticks_once_for_each_of_its_moments() -> None:
    with ax.testing.harness(timetable) as harness:
        ran = harness.advance(timedelta(hours=5))
        assert [task.result for task in ran] == ["hourly"] * 5
    with ax.testing.harness(timetable) as harness:
        assert harness.run_all() == []  # without a clock that moves, no schedule ticks


def test_a_task_that_expires_on_the_way_never_starts() -> None:
    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("wire", {"amount": 5}).say("Nobody answered.")
        harness.run("pays", {}, lock_key="account")
        waiting = harness.enqueue("note", {"text": "x"}, lock_key="account", expires=300)
        harness.advance(200)  # the time that the test itself takes counts as well
        assert harness.task(waiting).status is ax.Status.QUEUED
        harness.advance(200)
        assert harness.task(waiting).status is ax.Status.CANCELED


def test_a_question_is_told_of_and_reminded_of_and_times_out() -> None:
    reminded.clear()
    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("wire", {"amount": 5}).say("Nobody answered.")
        task = harness.run("pays", {})
        harness.advance(1500)
        assert reminded == [0, 1, 2]  # at once, and after 10 and 20 minutes
        assert harness.task(task.agent_id).status is ax.Status.QUEUED
        harness.advance(2400)
        assert harness.task(task.agent_id).result == "Nobody answered."


def test_the_clock_is_right_again_afterwards() -> None:
    before = utc_now()
    with ax.testing.harness(pool) as harness:
        harness.advance(86_400)
        assert utc_now() - before > timedelta(days=1)
    assert utc_now() - before < timedelta(hours=1)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_time_moves_ahead_only(seconds: float) -> None:
    with ax.testing.harness(pool) as harness, pytest.raises(ax.UsageError, match="ahead"):
        harness.advance(seconds)


def test_in_the_background_a_task_runs_while_the_test_goes_on() -> None:
    with ax.testing.harness(pool, background=True) as harness:
        task = ax.enqueue_sync("note", {"text": "done"})
        assert ax.get_result_sync(task, timeout=30) == "done"
        assert harness.run("note", {"text": "again"}).result == "again"
        late = harness.enqueue("note", {"text": "late"}, delay=60)
        assert ax.get_result_sync(late, timeout=30) == "late"


async def test_in_the_background_of_an_async_test() -> None:
    async with ax.testing.harness(pool, background=True):
        task = await ax.enqueue("note", {"text": "done"})
        assert await ax.get_result(task, timeout=30) == "done"


def test_an_error_of_the_script_in_the_background_reaches_the_test() -> None:
    harness = ax.testing.harness(pool, background=True)
    with pytest.raises(ax.testing.ScriptEndedError), harness as opened:
        task = ax.enqueue_sync("pays", {})
        with pytest.raises(ax.AgentexecError):
            ax.get_result_sync(task, timeout=30)
        del opened
