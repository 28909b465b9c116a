"""Budgets of agents: calls that do not fit are not made, and the ledger is the sum of what the journal has recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, ModelSettings, function_tool
from agents.testing import ScriptedModel, assistant_message
from sqlalchemy import select
from sqlalchemy.event import listen
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.queries.budgets import open_windows
from agentexec.arguments.budgets import NANOS, TaskBudget, parse_limit
from agentexec.cli.screen.view import header
from agentexec.db.clock import utc_now
from agentexec.journal.ledger import BUDGET, HOLD
from agentexec.journal.scopes import current_scope
from agentexec.journal.store import ACTIVITY
from agentexec.llm.prices import ModelPrice
from agentexec.runners.budgets import BUDGET_PROMPT, WRAP_UP_MESSAGE
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask
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


@both_modes
def test_at_the_limit_an_agent_wraps_up_without_tools(mode: str) -> None:
    with ax.testing.harness(researching(mode, on_budget="wrap_up")) as harness:
        harness.model.say("All that I know.")
        task = harness.run("research", budget="100 tokens")
        assert task.result == "All that I know."
        [call] = harness.model.calls
        assert (call.tools, call.handoffs, call.model_settings.tool_choice) == ([], [], None)
        assert call.input[-1] == {"role": "user", "content": BUDGET_PROMPT}
        assert call.input[0]["content"] == "Go."
        assert WRAP_UP_MESSAGE in task.messages
        assert account(task.agent_id).spent_tokens == 15
        assert holds() == []


def test_each_run_that_was_under_way_wraps_up_once_and_no_later_one() -> None:
    pool = ax.Pool()

    @pool.task("research", budget="700 tokens", on_budget="wrap_up")
    async def research(agent_id: UUID, context: Any) -> str:
        helper = Agent("Helper", model_settings=ModelSettings(max_tokens=5000)).as_tool("help", "Help.")
        boss = Agent("Boss", tools=[helper])
        try:
            answer = await ask(agent_id, agent=boss)
            # As after a crash: the journal has the last calls, and makes none again.
            return answer + await ask(
                agent_id, agent=Agent("Another", model_settings=ModelSettings(max_tokens=5000))
            )
        except ax.BudgetExceededError:
            return f"{answer} Then refused."

    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("help", {"input": "?"}).say("Helped.").say("Done.")
        task = harness.run("research")
        assert task.result == "Done. Then refused."
        assert [bool(call.tools) for call in harness.model.calls] == [True, False, True]


async def test_a_wrap_up_is_replayed_as_the_last_call(sqlite_tables: str) -> None:
    ax.configure(database_url=sqlite_tables)
    task, model = ReplayableTask(), ScriptedModel([[assistant_message("All.")]])

    async def handler() -> str:
        current_scope().recorder.budget.task = TaskBudget(parse_limit("1 tokens"), "wrap_up")
        agent = Agent("Researcher", model=model, tools=[look])
        answer = await ask(task.agent_id, agent=agent)
        with pytest.raises(ax.BudgetExceededError):
            await ask(task.agent_id, agent=agent)
        return answer

    assert await task.attempt(handler) == "All."
    assert await task.attempt(handler) == "All."
    assert len(model.calls) == 1
    RUNTIME.close()


@both_modes
def test_at_the_limit_a_person_raises_the_budget_or_stops_the_task(mode: str) -> None:
    with ax.testing.harness(researching(mode, on_budget="ask")) as harness:
        harness.model.say("Done.")
        task = harness.enqueue("research", budget="300 tokens")
        harness.run_all()
        assert not harness.model.calls
        [question] = harness.approvals
        assert question.tool == "raise_budget"
        asked = json.loads(question.arguments)
        assert asked == {
            "budget": f"Task {task.agent_id}",
            "limit": "300 tokens",
            "spent": "0 tokens",
            "next_call": asked["next_call"],
            "raise_by": "300 tokens",
        }
        ax.approve_sync(task, question.call_id)
        harness.run_all()
        assert harness.task(task).result == "Done."
        row = account(task.agent_id)
        assert (row.amount, row.raised, row.spent_tokens) == (300, 300, 15)

        task = harness.enqueue("research", budget="10 tokens")
        harness.model.say("Never.")
        harness.run_all()
        ax.reject_sync(task, harness.approvals[0].call_id)
        harness.run_all()
        assert "BudgetExceededError" in harness.task(task).error
        assert len(harness.model.calls) == 1


def test_a_retry_raises_a_budget_that_the_enqueue_gave() -> None:
    pool = researching()

    @pool.task("parent")
    async def parent(agent_id: UUID, context: Any) -> str:
        return await ax.get_result(await ax.enqueue("research", {}))

    with ax.testing.harness(pool) as harness:
        harness.model.say("Done.")
        task = harness.run("parent", budget="100 tokens", on_budget="fail")
        [child] = [known for known in harness.tasks if known.task_name == "research"]
        assert "BudgetExceededError: Parent task" in child.error
        assert ax.retry_sync(child.agent_id, budget="900 tokens")
        harness.run_all()
        assert "BudgetExceededError: Parent task" in harness.task(child.agent_id).error, (
            "its own limit is not the one"
        )
        with pytest.raises(ax.UsageError, match="budget="):
            ax.retry_sync(task.agent_id, budget="900")
        assert ax.retry_sync(task.agent_id, budget="900 tokens", by="Ada")
        harness.run_all()
        assert harness.task(task.agent_id).result == "Done."
        assert (
            "Put back on the queue by Ada, with a budget of 900 tokens."
            in harness.task(task.agent_id).messages
        )
        assert account(task.agent_id).amount == 900
        with Session(RUNTIME.engine) as db:
            assert str(ax.activity.detail(db, task.agent_id).budget) == (
                "15 tokens spent, 0 tokens reserved of 900 tokens"
            )
        assert not ax.retry_sync(task.agent_id, budget="5 tokens"), "it is complete"
        assert account(task.agent_id).amount == 900


def test_a_limit_set_in_a_run_counts_from_the_next_call_of_the_task_and_its_children() -> None:
    pool = ax.Pool()

    async def spend(agent_id: UUID, owner: str, limits: list[str]) -> str:
        @function_tool
        async def change() -> str:
            assert await ax.set_budget(owner, limits.pop(0), by="Ada")
            return "Changed."

        return await ask(agent_id, agent=Agent("Researcher", tools=[change]))

    @pool.task("alone")
    async def alone(agent_id: UUID, context: dict[str, Any]) -> str:
        return await spend(agent_id, str(agent_id), context["limits"])

    @pool.task("parent", budget="560 tokens")
    async def parent(agent_id: UUID, context: dict[str, Any]) -> Any:
        return await ax.get_result(await ax.enqueue("child", {**context, "parent": str(agent_id)}))

    @pool.task("child")
    async def child(agent_id: UUID, context: dict[str, Any]) -> str:
        return await spend(agent_id, context["parent"], context["limits"])

    for name in ("alone", "parent"):
        with ax.testing.harness(pool) as harness:
            for _ in range(4):
                harness.model.call_tool("change")
            limits = ["2000 tokens", "1500 tokens", "31 tokens"]
            task = harness.run(
                name, {"limits": limits}, **({"budget": "560 tokens"} if name == "alone" else {})
            )
            assert len(harness.model.calls) == 3, "the last limit was too low for a fourth call"
            assert "is at its budget of 31 tokens (45 tokens spent)" in task.error
            assert "Budget set to 1,500 tokens by Ada." in task.messages
            assert account(task.agent_id).amount == 31


@pytest.mark.parametrize("name", ["research", "parent"])
def test_a_task_that_waits_for_a_raise_goes_on_with_another_limit(name: str) -> None:
    pool = researching()

    @pool.task("parent")
    async def parent(agent_id: UUID, context: Any) -> str:
        child = await ax.enqueue("research", {})
        await ax.wait_for_event("go", str(agent_id))
        return await ax.get_result(child)

    with ax.testing.harness(pool) as harness:
        harness.model.say("Done.")
        task = harness.enqueue(name, budget="300 tokens", on_budget="ask")
        harness.run_all()
        [first] = harness.approvals
        assert ax.set_budget_sync(task, "301 tokens")
        harness.run_all()
        [second] = harness.approvals
        assert second.call_id == f"{first.call_id}_2", "the new limit is too low as well"
        assert json.loads(second.arguments)["limit"] == "301 tokens"
        assert ax.set_budget_sync(task, "900 tokens", by="Ada")
        harness.run_all()
        ax.send_event_sync("go", str(task.agent_id))
        harness.run_all()
        assert harness.task(task).result == "Done."
        assert not harness.approvals
        row = account(task.agent_id)
        assert (row.amount, row.raised, row.spent_tokens) == (900, 0, 15)
        assert not ax.set_budget_sync(task, "5 tokens"), "it has ended"
        assert account(task.agent_id).amount == 900


def test_a_limit_keeps_its_unit_while_the_task_goes_on() -> None:
    with ax.testing.harness(researching()) as harness:
        task = harness.enqueue("research", budget="300 tokens")
        with pytest.raises(ax.UsageError, match="is in tokens; give budget= in tokens too"):
            ax.set_budget_sync(task, "$2.00")
        with pytest.raises(ax.UsageError, match="budget="):
            ax.set_budget_sync(task, "2 euros")
        with pytest.raises(ax.ActivityNotFoundError):
            ax.set_budget_sync(task, "900 tokens", metadata_filter={"tenant": "other"})
        unlimited = harness.enqueue("research")
        assert ax.set_budget_sync(unlimited, "10 tokens")
        harness.run_all()
        assert "at its budget of 10 tokens" in harness.task(unlimited).error


def test_a_retry_replaces_a_damaged_budget_and_one_in_another_unit() -> None:
    with ax.testing.harness(researching(on_budget="ask")) as harness:
        task = harness.enqueue("research", budget="10 tokens")
        harness.run_all()
        ax.approve_sync(task, harness.approvals[0].call_id)
        harness.run_all()
        ax.reject_sync(task, harness.approvals[0].call_id)
        harness.run_all()
        assert "BudgetExceededError" in harness.task(task).error
        with RUNTIME.engine.begin() as connection:
            connection.execute(ACTIVITY.update().values(budget="damaged"))
        harness.model.say("Done.")
        assert ax.retry_sync(task, budget="$1.00")
        harness.run_all()
        assert harness.task(task).result == "Done."
        row = account(task.agent_id)
        assert (row.unit, row.amount, row.raised) == ("dollars", NANOS, 0)


def test_shared_budgets_are_read_by_two_statements() -> None:
    ax.CONF.budgets = "tenant=1000000 tokens/month; team=$1/day"
    with ax.testing.harness(researching()) as harness:
        for number in range(4):
            harness.model.say("Done.")
            harness.run("research", metadata={"tenant": f"t{number}"})
        statements: list[str] = []
        with Session(RUNTIME.engine) as db:
            listen(db.connection(), "before_cursor_execute", lambda *event: statements.append(event[2]))
            found = open_windows(db, utc_now())
        assert [(budget.spent, budget.reserved) for budget in found] == [(15, 0)] * 4
        assert len(statements) == 2


def test_a_question_says_what_the_next_call_takes_and_is_asked_again_after_a_retry() -> None:
    with ax.testing.harness(researching("run", on_budget="ask")) as harness:
        harness.model.say("Done.")
        task = harness.enqueue("research", budget="300 tokens")
        harness.run_all()
        [first] = harness.approvals
        wanted = int(json.loads(first.arguments)["next_call"].split()[0])
        assert 300 < wanted <= 600
        ax.reject_sync(task, first.call_id)
        harness.run_all()
        assert harness.task(task).status is ax.Status.ERROR
        for number in (2, 3):
            assert ax.retry_sync(task)
            harness.run_all()
            [question] = harness.approvals
            assert question.call_id == f"{first.call_id}_{number}"
            decide = ax.reject_sync if number == 2 else ax.approve_sync
            assert decide(task, question.call_id)
            harness.run_all()
        assert harness.task(task).result == "Done."
        row = account(task.agent_id)
        assert (row.amount, row.raised) == (300, 300)


def test_each_raise_has_an_id_of_its_own() -> None:
    with ax.testing.harness(researching("run", on_budget="ask")) as harness:
        harness.model.say("Done.")
        task = harness.enqueue("research", budget="200 tokens")
        ids: list[str] = []
        harness.run_all()
        while harness.approvals:
            [question] = harness.approvals
            ids.append(question.call_id)
            assert ax.approve_sync(task, question.call_id)
            harness.run_all()
        assert harness.task(task).result == "Done."
        assert len(ids) == len(set(ids)) > 1


def test_people_see_what_is_spent_reserved_and_the_limit() -> None:
    pool = ax.Pool()
    seen: list[Any] = []

    @function_tool
    async def watch() -> str:
        """Watch."""
        with Session(RUNTIME.engine) as db:
            seen.append(ax.activity.detail(db, tasks[0].agent_id).budget)
        return "Seen."

    @pool.task("research", budget="$2.00")
    async def research(agent_id: UUID, context: Any) -> str:
        return await ask(agent_id, agent=Agent("Researcher", tools=[watch]))

    ax.CONF.budgets = "*=1000000 tokens/month"
    with ax.testing.harness(pool) as harness:
        harness.model.call_tool("watch").say("Done.")
        tasks = [harness.enqueue("research", metadata={"tenant": "a"}, budget="$1.00")]
        with Session(RUNTIME.engine) as db:
            before = ax.activity.detail(db, tasks[0].agent_id).budget
        assert str(before) == "$0.00 spent, $0.00 reserved of $1.00"
        harness.run_all()
        assert str(seen[0]) == "$0.0006 spent, $0.00 reserved of $1.00"
        with Session(RUNTIME.engine) as db:
            detail = ax.activity.detail(db, tasks[0].agent_id)
            assert detail.model_dump(mode="json")["budget"]["spent"] == 0.0012
            spent = ax.activity.spent(db)
            assert [str(budget) for budget in spent.budgets] == [
                "30 tokens spent, 0 tokens reserved of 1,000,000 tokens"
            ]
            assert ax.activity.spent(db, metadata_filter={"tenant": "a"}).budgets == []
            overview = ax.activity.overview(db)
        text = "".join(line.plain for line in header(overview, spent, 200, paused=False, query=""))
        assert "* per month: 30 tokens spent, 0 tokens reserved of 1,000,000 tokens" in text
        child = harness.enqueue("research")
        with RUNTIME.engine.begin() as connection:
            connection.execute(ACTIVITY.update().values(budget="damaged"))
        with Session(RUNTIME.engine) as db:
            assert ax.activity.detail(db, child.agent_id).budget is None
        harness.run_all()
        assert "the budget in the task's row is damaged" in harness.task(child).error


@pytest.mark.parametrize("options", [{"budget": 2}, {"budget": "two dollars"}, {"on_budget": "stop"}])
def test_invalid_options_are_refused_at_once(options: Any) -> None:
    with pytest.raises(ax.UsageError, match="Task research: "):
        researching(**options)
    with (
        ax.testing.harness(researching()) as harness,
        pytest.raises(ax.UsageError, match=next(iter(options))),
    ):
        harness.run("research", **options)
