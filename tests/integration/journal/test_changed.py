"""`ax.changed`: new branches of the code that only new runs take, whenever the worker was killed.

All that a killed worker leaves is the journal, so a kill is a journal that ends early: old code runs, and new code goes on
from every length of what it recorded, then again from every length of what the new code recorded in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy import insert, select

import agentexec as ax
from agentexec.client.run_records import dump_run, read_run
from agentexec.journal.models import JournalEntry
from agentexec.journal.scopes import current_scope
from agentexec.runtime import RUNTIME
from agentexec.values.presentation import Presenter
from tests.attempts import ReplayableTask

JOURNAL: Any = JournalEntry.__table__
Handler = Callable[[ReplayableTask, bool], Awaitable[Any]]


@pytest.fixture(autouse=True)
def database(sqlite_tables: str) -> Iterator[None]:
    ax.configure(database_url=sqlite_tables)
    yield
    RUNTIME.close()


async def said(value: str) -> str:
    return value


def runner_of(task: ReplayableTask) -> ax.OpenAIRunner:
    return ax.OpenAIRunner(task.agent_id, tool_policy="idempotent")


async def in_order(task: ReplayableTask, is_new: bool) -> bool:
    """Steps one after the other, of which a change inserts one and gives another one a new input."""
    runner = runner_of(task)
    await runner.step("first", said, "a")
    takes = is_new and await ax.changed("check")
    if takes:
        await runner.step("check", said, "new")
    await runner.step("second", said, f"b {takes}")
    assert takes == (is_new and await ax.changed("check")), "the answer is one for the whole task"
    await runner.step("third", said, f"c {takes}")
    return takes


async def side_by_side(task: ReplayableTask, is_new: bool) -> bool:
    """Branches that run side by side, each with the change."""
    runner = runner_of(task)

    async def branch(name: str) -> bool:
        await runner.step(name, said, name)
        takes = is_new and await ax.changed("check")
        await runner.step(f"{name} then", said, f"{name} {takes}")
        return takes

    answers = set(await asyncio.gather(branch("left"), branch("right")))
    assert len(answers) == 1
    return answers.pop()


async def nested(task: ReplayableTask, is_new: bool) -> bool:
    """An agent whose tool runs another agent, with the change in the tool."""
    takes: list[bool] = []

    @function_tool
    async def ask(topic: str) -> str:
        takes.append(is_new and await ax.changed("check"))
        inner = Agent("Helper", model=ScriptedModel([[assistant_message("yes")]]))
        answer = await runner_of(task).run(inner, f"{topic} {takes[-1]}")
        return str(answer.final_output)

    turns = [[function_call("ask", {"topic": "t"}, call_id="call_1")], [assistant_message("Done.")]]
    model = ScriptedModel(turns[current_scope_turns() :])
    await runner_of(task).run(Agent("Outer", model=model, tools=[ask]), "Go.")
    return takes[-1] if takes else is_new and await ax.changed("check")


def current_scope_turns() -> int:
    """Return how many responses of the outer agent are recorded: the script is to begin after them."""
    scope = current_scope()
    assert scope is not None
    scope.recorder.load()
    return sum(fact.kind == "model" for fact in scope.recorder.facts("Outer#1"))


def journal_of(task: ReplayableTask) -> list[dict[str, Any]]:
    order = JOURNAL.c.epoch, JOURNAL.c.created_at, JOURNAL.c.path, JOURNAL.c.seq
    with RUNTIME.engine.connect() as connection:
        query = select(JOURNAL).where(JOURNAL.c.agent_id == task.agent_id).order_by(*order)
        return [dict(row._mapping) for row in connection.execute(query)]


def killed_task(journal: list[dict[str, Any]]) -> ReplayableTask:
    """Return a task with this journal, whose worker was killed."""
    task = ReplayableTask()
    task.epoch = max((row["epoch"] for row in journal), default=1)
    if journal:
        with RUNTIME.engine.begin() as connection:
            connection.execute(insert(JOURNAL), [{**row, "agent_id": task.agent_id} for row in journal])
    return task


def marks(journal: list[dict[str, Any]]) -> list[str]:
    return [row["value"] for row in journal if row["path"] == "/changed/check"]


@pytest.mark.parametrize("handler", [in_order, side_by_side, nested])
async def test_new_code_replays_what_old_code_recorded_and_changes_the_rest(handler: Handler) -> None:
    old = ReplayableTask()
    await old.attempt(lambda: handler(old, False))
    recorded = journal_of(old)
    assert len(recorded) >= 4 and not marks(recorded)
    answers = []
    for kept in range(len(recorded) + 1):
        task = killed_task(recorded[:kept])
        answer = await task.attempt(lambda task=task: handler(task, True))
        answers.append(answer)
        journal = journal_of(task)
        assert marks(journal) == ["true" if answer else "false"]
        for again in range(kept, len(journal) + 1):
            killed = killed_task(journal[:again])
            second = await killed.attempt(lambda killed=killed: handler(killed, True))
            if marks(journal[:again]):
                assert second == answer, "it stays what it was"
    assert answers[0] and False in answers


async def test_a_new_run_takes_the_branch_and_records_it_once() -> None:
    task = ReplayableTask()

    async def handler() -> list[bool]:
        return [await ax.changed("a"), await ax.changed("a"), await asyncio.to_thread(ax.changed_sync, "a")]

    assert await task.attempt(handler) == [True] * 3
    assert await task.attempt(handler) == [True] * 3
    assert task.journal() == [("/changed/a", 0, "outcome")]


async def test_children_and_waits_for_events_count_as_recorded() -> None:
    task = ReplayableTask()

    async def enqueues(is_new: bool) -> bool | None:
        takes = await ax.changed("other") if is_new else None
        if not takes:
            await ax.enqueue("child", {"n": 1})
        return takes

    await task.attempt(lambda: enqueues(False))
    assert await task.attempt(lambda: enqueues(True)) is False

    async def continues() -> bool:
        await ax.enqueue("child", {"n": 1})
        return await ax.changed("later")

    assert await task.attempt(continues) is True, "the child is one that this code comes to"


async def test_a_change_that_was_taken_out_again_does_no_harm() -> None:
    task = ReplayableTask()
    assert await task.attempt(lambda: in_order(task, True))

    async def without() -> str:
        runner = runner_of(task)
        await runner.step("first", said, "a")
        await runner.step("check", said, "new")
        return str(await runner.step("second", said, "b True"))

    assert await task.attempt(without) == "b True"


async def test_outside_of_a_task_and_without_await_it_says_what_to_do() -> None:
    with pytest.raises(ax.UsageError, match=r"ax\.changed\(\) is for code inside a task"):
        ax.changed("a")
    with pytest.raises(ax.UsageError, match="changed_sync"):
        ax.changed_sync("a")
    task = ReplayableTask()

    async def forgets() -> None:
        with pytest.raises(ax.UsageError, match=r'Write `await ax\.changed\("a"\)`'):
            assert ax.changed("a")
        for wrong in ("", "x" * 101, 3):
            with pytest.raises(ax.UsageError, match="The name of a change"):
                ax.changed(wrong)  # type: ignore[arg-type]

    await task.attempt(forgets)


class World:
    """A pool whose handler has been given a step since some runs began."""

    def __init__(self) -> None:
        self.pool = ax.Pool()
        self.is_new = False
        world = self

        @self.pool.task("work")
        async def work(agent_id: Any, context: dict[str, Any]) -> str:
            runner = ax.OpenAIRunner(agent_id)
            if world.is_new and await ax.changed("check"):
                await runner.step("check", said, "checked")
            result = await runner.run(Agent("Writer"), "Write.")
            return str(result.final_output)


def exported(task: Any, folder: Path) -> Path:
    with RUNTIME.engine.connect() as connection:
        record = read_run(connection, task.agent_id, Presenter(set(), None).present, None)
    (folder / "run.json").write_text(dump_run(record), encoding="utf-8")
    return folder / "run.json"


@pytest.mark.parametrize("began_new", [False, True])
def test_forks_and_offline_replays_know_which_branch_a_run_took(began_new: bool, tmp_path: Path) -> None:
    world = World()
    world.is_new = began_new
    with ax.testing.harness(world.pool) as harness:
        harness.model.say("written")
        task = harness.run("work")
        file = exported(task, tmp_path)
        world.is_new = True
        harness.model.say("written otherwise")
        fork = ax.fork_sync(task.agent_id, at=1, input="Otherwise.")
        harness.run_all()
        assert harness.task(fork).result == "written otherwise"
        with RUNTIME.engine.connect() as connection:
            query = select(JOURNAL.c.value).where(
                JOURNAL.c.agent_id == fork.agent_id, JOURNAL.c.path == "/changed/check"
            )
            assert connection.execute(query).scalars().all() == ["true" if began_new else "false"]
    assert ax.testing.replay(file, world.pool).result == "written"
