"""A process that was frozen for longer than its lease does nothing that costs or acts before it knows that it has its task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from agents import Agent, RunHooks, Runner, SQLiteSession, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

import agentexec as ax
from agentexec.journal.scopes import current_scope
from agentexec.journal.steps import run_step_once
from agentexec.runners.openai.limits import PacedModel
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from tests.attempts import ReplayableTask


class FrozenLeases:
    """Leases of a process that is frozen at a chosen moment: from then on it must ask whether it has its task."""

    def __init__(self) -> None:
        self.certain, self.asked, self.unavailable, self.lost = True, 0, 0, True

    def freeze(self, *_: Any) -> str:
        self.certain = False
        return "Act."

    def is_certain(self, lease: Lease) -> bool:
        return self.certain

    def confirm(self, lease: Lease) -> None:
        self.asked += 1
        if self.asked <= self.unavailable:
            raise ax.UnavailableError("The database is away.")
        if self.lost:
            raise ax.LeaseLostError(lease.agent_id)


class World:
    """An agent with a tool and a session, and what it does to the world."""

    def __init__(self, leases: FrozenLeases) -> None:
        self.leases = leases
        self.acts: list[str] = []
        self.freeze_at = ""
        self.session = SQLiteSession("s")

    def reach(self, moment: str) -> str:
        if moment == self.freeze_at:
            self.leases.freeze()
        return "Act."

    def answer(self, call: Any) -> ModelStep:
        turn = 2 if any("call_id" in item for item in call.input if isinstance(item, dict)) else 1
        self.acts.append(f"model {turn}")
        self.reach(f"after model {turn}")
        return ModelStep([assistant_message("done") if turn == 2 else function_call("act", {}, call_id="c")])

    def agent(self) -> Agent[Any]:
        turns = iter((1, 2))

        @ax.tool_policy("idempotent")
        @function_tool
        async def act() -> str:
            self.acts.append("tool")
            return "acted"

        return Agent(
            name="Actor",
            instructions=lambda _context, _agent: self.reach(f"before model {next(turns)}"),
            model=ScriptedModel([ModelStep.respond(self.answer)] * 2),
            tools=[act],
        )

    async def run(self, agent_id: Any) -> Any:
        world = self

        class Hooks(RunHooks[Any]):
            async def on_tool_start(self, *_: Any) -> None:
                world.reach("before the tool")

        return await ax.OpenAIRunner(agent_id).run(self.agent(), "Go.", session=self.session, hooks=Hooks())


@pytest.fixture
def leases(sqlite_tables: str) -> Iterator[FrozenLeases]:
    ax.configure(database_url=sqlite_tables)
    RUNTIME.leases = FrozenLeases()
    yield RUNTIME.leases
    RUNTIME.leases = None
    RUNTIME.close()


@pytest.mark.parametrize(
    ("moment", "acts"),
    [
        ("before model 1", []),
        ("before the tool", ["model 1"]),
        ("before model 2", ["model 1", "tool"]),
    ],
)
async def test_a_model_or_a_tool_is_not_called_for_a_task_that_another_worker_has(
    leases: FrozenLeases, moment: str, acts: list[str]
) -> None:
    task, world = ReplayableTask(), World(leases)
    world.freeze_at = moment
    with pytest.raises(ax.LeaseLostError):
        await task.attempt(lambda: world.run(task.agent_id))
    assert world.acts == acts
    leases.certain, world.freeze_at = True, ""
    await task.attempt(lambda: world.run(task.agent_id))
    assert world.acts == ["model 1", "tool", "model 2"], "the next attempt goes on where this one ended"


async def test_a_session_is_not_written_for_a_task_that_another_worker_has(leases: FrozenLeases) -> None:
    task, world = ReplayableTask(), World(leases)
    world.freeze_at = "after model 2"
    with pytest.raises(ax.LeaseLostError):
        await task.attempt(lambda: world.run(task.agent_id))
    assert "done" not in str(await world.session.get_items())


async def step_without_intent(acts: list[str]) -> None:
    async def act() -> bool:
        acts.append("step")
        return True

    await run_step_once(current_scope(), "act", act)


async def run_of_the_sdk(acts: list[str]) -> None:
    def answer(_call: Any) -> ModelStep:
        acts.append("model")
        return ModelStep([assistant_message("done")])

    model = PacedModel(ScriptedModel([ModelStep.respond(answer)]))
    await Runner.run(Agent(name="Plain", model=model), "Go.")


@pytest.mark.parametrize("act", [step_without_intent, run_of_the_sdk])
async def test_whatever_records_no_intent_asks_too(
    leases: FrozenLeases, act: Callable[[list[str]], Awaitable[None]]
) -> None:
    """Steps of pipelines, and paced models in runs that are not durable."""
    task, acts = ReplayableTask(), []
    leases.freeze()
    with pytest.raises(ax.LeaseLostError):
        await task.attempt(lambda: act(acts))
    assert acts == []
    leases.certain = True
    await task.attempt(lambda: act(acts))
    assert len(acts) == 1


async def test_a_process_whose_leases_are_fresh_asks_nobody(leases: FrozenLeases) -> None:
    task, world = ReplayableTask(), World(leases)
    await task.attempt(lambda: world.run(task.agent_id))
    assert (world.acts, leases.asked) == (["model 1", "tool", "model 2"], 0)


async def test_a_process_that_still_has_its_task_goes_on_when_the_database_is_back(
    leases: FrozenLeases,
) -> None:
    task, world = ReplayableTask(), World(leases)
    world.freeze_at, leases.unavailable, leases.lost = "before model 2", 2, False
    await task.attempt(lambda: world.run(task.agent_id))
    assert world.acts == ["model 1", "tool", "model 2"]
    assert leases.asked > 2
