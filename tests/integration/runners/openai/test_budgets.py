"""Budgets of agents: calls that do not fit are not made, and the ledger is the sum of what the journal has recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from sqlalchemy import select

import agentexec as ax
from agentexec.arguments.budgets import NANOS
from agentexec.journal.ledger import BUDGET, HOLD
from agentexec.llm.prices import ModelPrice
from agentexec.runtime import RUNTIME
from tests.waiting import wait_until

# A scripted call takes 15 tokens: 10 of input, which cost $10 a million here, and 5 of output, which cost $100.
PRICES = {"AgentScript": ModelPrice(input=10, output=100)}
CALL_NANOS = 600_000

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    before = ax.CONF.model_prices, ax.CONF.budgets
    ax.CONF.model_prices = PRICES
    yield
    ax.CONF.model_prices, ax.CONF.budgets = before


def account(name: str | UUID) -> Any:
    with RUNTIME.engine.connect() as connection:
        name = f"task:{name}" if isinstance(name, UUID) else name
        return connection.execute(select(BUDGET).where(BUDGET.c.name == name)).one()


def holds() -> list[Any]:
    with RUNTIME.engine.connect() as connection:
        return list(connection.execute(select(HOLD)))


@function_tool
def look() -> str:
    """Look around."""
    return "Nothing."


async def ask(agent_id: UUID, mode: str = "run", agent: Agent[Any] | None = None) -> str:
    runner = ax.OpenAIRunner(agent_id)
    agent = agent or Agent("Researcher", tools=[look])
    if mode == "run":
        return (await runner.run(agent, "Go.", max_turns=100)).final_output
    result = await runner.run_streamed(agent, "Go.")
    async for _ in result.stream_events():
        pass
    return result.final_output


def researching(mode: str = "run", **options: Any) -> ax.Pool:
    pool = ax.Pool()

    @pool.task("research", **options)
    async def research(agent_id: UUID, context: Any) -> str:
        return await ask(agent_id, mode)

    return pool


@both_modes
def test_calls_within_the_budget_are_charged_to_it(mode: str) -> None:
    with ax.testing.harness(researching(mode, budget="$2.00")) as harness:
        harness.model.call_tool("look").say("Done.")
        task = harness.run("research")
        assert task.result == "Done."
        row = account(task.agent_id)
        assert (row.spent_nanos, row.spent_tokens) == (2 * CALL_NANOS, 30)
        assert (row.unit, row.amount) == ("dollars", 2 * NANOS)
        assert holds() == []


@both_modes
@pytest.mark.parametrize("budget", ["$0.055", "545 tokens"])
def test_a_call_that_does_not_fit_is_not_made(mode: str, budget: str) -> None:
    # The first call is expected to take 500 tokens of output and some 40 of input; after it, the second takes less.
    with ax.testing.harness(researching(mode, retries=3)) as harness:
        harness.model.call_tool("look").call_tool("look").say("Never.")
        task = harness.run("research", budget="$0.001" if "$" in budget else "100 tokens")
        assert task.status is ax.Status.ERROR
        assert not harness.model.calls
        assert task.attempts == 1
        assert "BudgetExceededError: Task" in task.error
        assert "was not made; raise the budget and retry the task." in task.error

        task = harness.run("research", budget=budget)
        assert (task.result, account(task.agent_id).spent_tokens) == ("Never.", 45)
        assert holds() == []


def test_the_limit_holds_in_the_middle_of_a_run() -> None:
    with ax.testing.harness(researching()) as harness:
        for _ in range(100):
            harness.model.call_tool("look")
        task = harness.run("research", budget="560 tokens")
        assert "BudgetExceededError" in task.error
        spent = account(task.agent_id).spent_tokens
        assert spent == 15 * len(harness.model.calls)
        assert 15 < spent <= 560


def test_the_error_can_be_caught_and_says_what_was_spent() -> None:
    pool, caught = ax.Pool(), []

    @pool.task("research", budget="$0.001")
    async def research(agent_id: UUID, context: Any) -> str:
        try:
            return await ask(agent_id)
        except ax.BudgetExceededError as error:
            caught.append((error.spent, error.reserved, error.limit))
            return "Too expensive."

    with ax.testing.harness(pool) as harness:
        assert harness.run("research").result == "Too expensive."
    assert caught == [(0.0, 0.0, 0.001)]


def test_a_model_without_a_price_is_refused_unless_the_budget_is_in_tokens() -> None:
    ax.CONF.model_prices = {}
    with ax.testing.harness(researching(budget="$2.00")) as harness:
        harness.model.say("Done.")
        task = harness.run("research")
        assert "AgentScript has no price; set it in AGENTEXEC_MODEL_PRICES" in task.error
        assert not harness.model.calls
        assert harness.run("research", budget="5000 tokens").result == "Done."


def test_nested_agents_and_children_count_for_the_task() -> None:
    pool = ax.Pool()

    @pool.task("parent", budget="$2.00")
    async def parent(agent_id: UUID, context: Any) -> Any:
        helper = Agent("Helper").as_tool("help", "Help.")
        await ask(agent_id, agent=Agent("Boss", tools=[helper]))
        child = await ax.enqueue("child", budget="$1.00")
        await ax.get_result(child)
        detached = await ax.enqueue("child", {"detached": True}, detached=True)
        await ax.get_result(detached)
        return [str(child.agent_id), str(detached.agent_id)]

    @pool.task("child")
    async def child(agent_id: UUID, context: Any) -> str:
        return await ask(agent_id)

    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("help", {"input": "?"}).say("Helped.").say("Done.").say("Child.").say(
            "Alone."
        )
        task = harness.run("parent")
        own, detached = (UUID(agent_id) for agent_id in task.result)
        assert account(task.agent_id).spent_tokens == 4 * 15
        assert account(own).spent_tokens == 15
        with RUNTIME.engine.connect() as connection:
            assert connection.execute(select(BUDGET).where(BUDGET.c.agent_id == detached)).all() == []


def test_a_child_is_refused_by_the_budget_of_its_parent() -> None:
    pool = ax.Pool()

    @pool.task("parent", budget="100 tokens")
    async def parent(agent_id: UUID, context: Any) -> Any:
        await ax.get_result(await ax.enqueue("child"))

    @pool.task("child")
    async def child(agent_id: UUID, context: Any) -> str:
        return await ask(agent_id)

    with ax.testing.harness(pool) as harness:
        task = harness.run("parent")
        assert f"Parent task {task.agent_id} is at its budget of 100 tokens (0 tokens spent)" in task.error
        assert not harness.model.calls


def test_windows_are_shared_by_label_and_by_all() -> None:
    ax.CONF.budgets = "tenant=1000 tokens/month; *=$2/month"
    with ax.testing.harness(researching()) as harness:
        harness.model.say("One.").say("Two.").say("Three.")
        for metadata in ({"tenant": "a"}, {"tenant": "a"}, None):
            assert harness.run("research", metadata=metadata).status is ax.Status.COMPLETE
        with RUNTIME.engine.connect() as connection:
            rows = {row.title: row for row in connection.execute(select(BUDGET))}
        assert {title: row.spent_tokens for title, row in rows.items()} == {"tenant=a": 30, "*": 45}
        assert rows["*"].spent_nanos == 3 * CALL_NANOS
        ax.CONF.budgets = "tenant=31 tokens/month"
        task = harness.run("research", metadata={"tenant": "a"})
        assert "tenant=a per month is at its budget of 31 tokens (30 tokens spent)" in task.error


@both_modes
def test_a_failed_call_gives_back_what_it_has_reserved(mode: str) -> None:
    with ax.testing.harness(researching(mode, budget="$2.00")) as harness:
        harness.model.fail(RuntimeError("down"))
        task = harness.run("research")
        assert "down" in task.error
        wait_until(lambda: not holds())
        assert account(task.agent_id).spent_tokens == 0


def test_calls_wait_for_calls_in_flight_rather_than_fail() -> None:
    pool = ax.Pool()

    @pool.task("both", budget="700 tokens")
    async def both(agent_id: UUID, context: Any) -> list[str]:
        return list(await asyncio.gather(*(ask(agent_id, agent=Agent(name)) for name in ("A", "B"))))

    with ax.testing.harness(pool) as harness:
        harness.model.say("One.").say("Two.")
        task = harness.run("both")
        assert sorted(task.result) == ["One.", "Two."]
        assert account(task.agent_id).spent_tokens == 30


@pytest.mark.parametrize("options", [{"budget": 2}, {"budget": "two dollars"}, {"on_budget": "stop"}])
def test_invalid_options_are_refused_at_once(options: Any) -> None:
    with pytest.raises(ax.UsageError, match="Task research: "):
        researching(**options)
    with (
        ax.testing.harness(researching()) as harness,
        pytest.raises(ax.UsageError, match=next(iter(options))),
    ):
        harness.run("research", **options)
