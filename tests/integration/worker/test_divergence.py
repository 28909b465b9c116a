"""Policies for a run that the code at hand cannot replay: fail, restart, ask."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.journal.given_up import given_up_runs
from agentexec.journal.models import JournalEntry, JournalHistory
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from agentexec.worker import divergence


class Order(BaseModel):
    cents: int = 5


class Shop:
    """A pool whose agent charges and then waits for a person; `word` stands for the code, which a deploy changes."""

    def __init__(self, streamed: bool = False, **options: Any) -> None:
        self.pool = ax.Pool()
        self.word = "old"
        self.charged: list[int] = []
        self.swallows = False
        shop = self

        @function_tool
        async def charge(cents: int) -> str:
            shop.charged.append(cents)
            return f"charged {cents}"

        @function_tool(needs_approval=True)
        async def ship() -> str:
            return "shipped"

        agent = Agent(name="Till", tools=[charge, ship])

        @self.pool.task("sell", **options)
        async def sell(agent_id: UUID, context: Order) -> str:
            runner = ax.OpenAIRunner(agent_id)
            text = f"Sell with {shop.word} words."
            try:
                if streamed:
                    result = await runner.run_streamed(agent, text)
                    async for _ in result.stream_events():
                        pass
                    return str(result.final_output)
                return str((await runner.run(agent, text)).final_output)
            except ax.AgentexecError:
                if shop.swallows:
                    return "swallowed"
                raise


def begin(shop: Shop, harness: Any, cents: int = 5) -> Any:
    """Run until the person is asked, then deploy other code, and let the person answer."""
    harness.model.call_tool("charge", {"cents": cents}).call_tool("ship", {})
    task = harness.run("sell")
    assert task.status is ax.Status.QUEUED
    shop.word = "new"
    [call] = harness.approvals
    ax.approve_sync(task.agent_id, call.call_id)
    return task


def history(task: Any) -> list[tuple[int, str]]:
    query = select(JournalHistory.run, JournalHistory.path).where(JournalHistory.agent_id == task.agent_id)
    with RUNTIME.engine.connect() as connection:
        return [
            tuple(row) for row in connection.execute(query.order_by(JournalHistory.run, JournalHistory.path))
        ]


def paths(task: Any) -> set[str]:
    with RUNTIME.engine.connect() as connection:
        query = select(JournalEntry.path).where(JournalEntry.agent_id == task.agent_id)
        return set(connection.execute(query).scalars())


def test_by_default_a_run_that_diverges_fails() -> None:
    shop = Shop()
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        harness.run_all()
        ended = harness.task(task.agent_id)
        assert ended.status is ax.Status.ERROR
        assert "ReplayDivergedError" in ended.error
        assert history(task) == []


@pytest.mark.parametrize("streamed", [False, True])
def test_a_restart_keeps_the_old_journal_and_begins_the_run_again(streamed: bool) -> None:
    shop = Shop(streamed, on_divergence="restart", version="2")
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        before = paths(task)
        harness.model.call_tool("charge", {"cents": 7}).say("sold")
        harness.run_all()
        ended = harness.task(task.agent_id)
        assert (ended.status, ended.result, ended.attempts) == (ax.Status.COMPLETE, "sold", 1)
        assert shop.charged == [5, 7]
        assert {path for _, path in history(task)} == {*before, "/given-up"}
        [line] = [message for message in ended.messages if "restart 1 of 3" in message]
        assert "went another way" in line
        with RUNTIME.engine.connect() as connection:
            [run] = given_up_runs(connection, task.agent_id)
        assert (run.number, run.version, run.facts > 3) == (1, "2", True)
        told = [call.input for call in harness.model.calls]
        assert "earlier run" not in repr(told), "by default the agent is not told"
        with Session(RUNTIME.engine) as db:
            [decided] = ax.approvals.list(db, task.agent_id, state="decided")
        assert (decided.tool, decided.status, decided.run) == ("ship", "approved", 1)


def test_a_worker_that_loses_its_task_after_the_restart_has_logged_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_up = divergence.give_up

    def give_up_and_die(engine: Any, lease: Lease, *arguments: Any, **options: Any) -> None:
        give_up(engine, lease, *arguments, **options)
        give_up(engine, lease, *arguments, **options)  # the first commit may not have been confirmed
        raise ax.LeaseLostError(lease.agent_id)

    monkeypatch.setattr(divergence, "give_up", give_up_and_die)
    shop = Shop(on_divergence="restart")
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        harness.run_all()
        messages = harness.task(task.agent_id).messages
        assert len([line for line in messages if "Beginning the run again (restart 1 of 3)" in line]) == 1


def test_agents_are_told_what_took_effect_if_they_are_to_be() -> None:
    shop = Shop(on_divergence=ax.Restart(tell_effects=True))
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        harness.model.call_tool("ship", {})
        harness.run_all()
        first = harness.model.calls[2].input
        assert [item.get("role") for item in first] == ["user", "user"]
        assert first[0]["content"] == "Sell with new words."
        assert "may" in first[1]["content"] or "have taken effect" in first[1]["content"]
        assert first[1]["content"].splitlines()[1:] == ['- charge({"cents":5}): charged 5']
        # A second deploy, while the new run waits: what the first run did is told again.
        shop.word = "newest"
        [call] = harness.approvals
        ax.approve_sync(task.agent_id, call.call_id)
        harness.model.say("sold")
        harness.run_all()
        assert harness.task(task.agent_id).result == "sold"
        last = harness.model.calls[-1].input
        assert last[1]["content"].splitlines()[1:] == ['- charge({"cents":5}): charged 5']
        assert shop.charged == [5]


def test_code_that_diverges_every_time_ends() -> None:
    shop = Shop(on_divergence=ax.Restart(limit=2), version="3", retries=5)
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        for number in (1, 2):
            harness.model.call_tool("ship", {})
            harness.run_all()
            shop.word = f"other {number}"
            [call] = harness.approvals
            ax.approve_sync(task.agent_id, call.call_id)
        harness.run_all()
        ended = harness.task(task.agent_id)
        assert ended.status is ax.Status.ERROR
        assert "it was restarted 2 time(s) by version 3, and has diverged again" in ended.error
        assert {run for run, _ in history(task)} == {1, 2}


def test_a_person_may_be_asked_and_approves() -> None:
    shop = Shop(on_divergence="ask")
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        harness.run_all()
        waiting = harness.task(task.agent_id)
        assert waiting.status is ax.Status.QUEUED
        [question] = [call for call in harness.approvals if call.tool == "restart"]
        assert question.call_id == "divergence"
        assert "went another way" in question.arguments
        assert "Waiting for approval: restart(" in waiting.messages[-1]
        ax.approve_sync(task.agent_id, "divergence")
        harness.model.say("sold")
        harness.run_all()
        assert harness.task(task.agent_id).result == "sold"
        assert {run for run, _ in history(task)} == {1}


def test_a_rejected_restart_ends_the_task_and_a_retry_asks_again() -> None:
    shop = Shop(on_divergence="ask", retries=3)
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        harness.run_all()
        ax.reject_sync(task.agent_id, "divergence", message="too late")
        harness.run_all()
        ended = harness.task(task.agent_id)
        assert ended.status is ax.Status.ERROR
        assert "a restart was rejected: too late" in ended.error
        ax.retry_sync(task.agent_id)
        harness.run_all()
        assert [call.tool for call in harness.approvals] == ["restart"]
        # The old code is back: the run goes on with its own journal, and nobody is asked.
        shop.word = "old"
        ax.approve_sync(task.agent_id, "divergence")
        harness.model.say("sold after all")
        harness.run_all()
        assert harness.task(task.agent_id).result == "sold after all"
        assert history(task) == []


def test_a_handler_that_swallows_the_divergence_is_restarted_too() -> None:
    shop = Shop(on_divergence="restart")
    shop.swallows = True
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        harness.model.say("sold")
        harness.run_all()
        assert harness.task(task.agent_id).result == "sold"


def test_the_setting_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ax.CONF, "on_divergence", "restart")
    shop, own = Shop(), Shop(on_divergence="fail")
    for world, status in ((shop, ax.Status.COMPLETE), (own, ax.Status.ERROR)):
        with ax.testing.harness(world.pool) as harness:
            task = begin(world, harness)
            harness.model.say("sold")
            harness.run_all()
            assert harness.task(task.agent_id).status is status


def test_the_history_goes_with_the_task() -> None:
    shop = Shop(on_divergence="restart")
    with ax.testing.harness(shop.pool) as harness:
        task = begin(shop, harness)
        harness.model.say("sold")
        harness.run_all()
        assert history(task)
        with RUNTIME.engine.begin() as connection:
            connection.execute(Activity.__table__.delete().where(Activity.agent_id == task.agent_id))
        assert history(task) == []


def test_wrong_policies_are_refused() -> None:
    async def handler(agent_id: UUID, context: Order) -> None:
        """Do nothing."""

    for wrong in ("again", True, 1, {"ask": True}):
        with pytest.raises(ax.UsageError, match="on_divergence must be"):
            ax.Pool().task("sell", on_divergence=wrong)(handler)  # type: ignore[arg-type]
    for options in ({"limit": 0}, {"ask": "yes"}, {"tell_effects": 1}):
        with pytest.raises(ax.UsageError):
            ax.Restart(**options)  # type: ignore[arg-type]
