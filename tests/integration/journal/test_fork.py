"""Forks: a new task that begins with the recorded turns of another one and takes the others itself."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, SQLiteSession, function_tool
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.cli.diff import Difference
from agentexec.journal.models import JournalEntry
from agentexec.runtime import RUNTIME
from agentexec.values.presentation import Bounds, Presenter
from tests.waiting import patient


class Question(BaseModel):
    text: str = "How is Acme?"


class World:
    """A pool with one agent, and what its tools have done."""

    def __init__(self, session: Any = None) -> None:
        self.pool = ax.Pool()
        self.effects: list[tuple[str, str]] = []
        self.session = session
        world = self

        @ax.tool_policy("idempotent")
        @function_tool
        async def search(query: str) -> str:
            world.effects.append((query, ax.idempotency_key()))
            return f"results for {query}"

        @function_tool
        async def expert(query: str) -> str:
            return f"an opinion on {query}"

        agent = Agent(name="Researcher", instructions="Be brief.", tools=[search, expert])

        @self.pool.task("research")
        async def research(agent_id: Any, context: Question) -> str:
            child = await ax.enqueue("note", {"text": context.text})
            world.effects.append(("child", str(child.agent_id)))
            runner = ax.OpenAIRunner(agent_id)
            result = await runner.run(agent, context.text, session=world.session)
            await ax.enqueue("note", {"text": "the end"})
            return result.final_output

        @self.pool.task("note")
        async def note(agent_id: Any, context: dict[str, str]) -> None:
            world.effects.append(("note", context["text"]))


def journal_of(task: Any) -> list[tuple[str, int, str]]:
    query = select(JournalEntry.path, JournalEntry.seq, JournalEntry.kind)
    query = query.where(JournalEntry.agent_id == task.agent_id).order_by(JournalEntry.path, JournalEntry.seq)
    with RUNTIME.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def searches(world: World) -> list[str]:
    return [query for query, _ in world.effects if query not in ("child", "note")]


def test_a_fork_replays_the_turns_before_and_takes_the_others_itself() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).call_tool("search", {"query": "b"}).say("first")
        first = harness.run("research", Question(), metadata={"tenant": "acme"}, budget="900 tokens")
        assert (first.result, searches(world)) == ("first", ["a", "b"])
        before = journal_of(first)
        fork = ax.fork_sync(
            first.agent_id, at=2, instructions="Be long.", model="gpt-9", input="Look closer.", by="Ada"
        )
        harness.model.call_tool("search", {"query": "c"}).say("second")
        harness.run_all()
        second = harness.task(fork)
        assert second.result == "second"
        assert searches(world) == ["a", "b", "c"], "the tool of the first turn did not run again"
        keys = [key for query, key in world.effects if query in ("a", "b", "c")]
        assert len(set(keys)) == 3
        calls = harness.model.calls[3:]
        assert [call.system_instructions for call in calls] == ["Be long.", "Be long."]
        assert [item.get("content") for item in calls[0].input][-1] == "Look closer."
        assert [item.get("content") for item in calls[1].input][-3] == "Look closer.", "it stays in its place"
        assert second.metadata == {"tenant": "acme"}
        with RUNTIME.engine.connect() as connection:
            query = select(Activity.input_tokens, Activity.budget).order_by(Activity.created_at)
            rows = connection.execute(
                query.where(Activity.agent_id.in_((first.agent_id, fork.agent_id)))
            ).all()
        assert [row.input_tokens for row in rows] == [30, 20], "each spends its own"
        assert rows[0].budget == rows[1].budget
        changed = "with other instructions, model gpt-9 and a message"
        expected = f"Forked from task {first.agent_id} at turn 2 of Researcher#1 {changed} by Ada."
        assert second.log[0].message == expected
        note = f"Forked at turn 2 of Researcher#1 {changed} as task {fork.agent_id} by Ada."
        assert harness.task(first.agent_id).messages[-1] == note
        assert "Resumed at turn 2 (attempt 1)" in second.messages
        assert journal_of(first) == before, "the first task stays as it is"
        assert harness.task(first.agent_id).result == "first"
        with RUNTIME.engine.connect() as connection:
            used = connection.execute(
                select(func.count()).where(
                    JournalEntry.agent_id == fork.agent_id, JournalEntry.kind == "model"
                )
            ).scalar()
        assert used == 3


def test_the_difference_of_a_fork_is_what_came_after_the_turn() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).say("first")
        first = harness.run("research", Question())
        fork = ax.fork_sync(first.agent_id, at=2)
        harness.model.call_tool("search", {"query": "b"}).say("second")
        harness.run_all()
        presenter = Presenter(set(), Bounds())
        difference = Difference(first.agent_id, fork.agent_id, None, presenter)
        text = "\n".join(difference.lines())
        assert '  2 steps of both\n- Researcher#1: first\n+ Researcher#1: search({"query":"b"})' in text
        data = difference.as_json()
        assert (data["first"]["requests"], data["second"]["requests"]) == (2, 2)
        assert (data["first"]["steps"], data["second"]["steps"]) == (3, 5)
        assert [(step["change"], step["count"]) for step in data["steps"]] == [
            ("same", 2),
            ("removed", 1),
            *[("added", 1)] * 3,
        ]
        assert data["is_complete"]
        assert (data["first"]["result"], data["second"]["result"]) == ("first", "second")


def test_children_before_the_turn_are_shared_and_those_after_it_are_new() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).say("first")
        first = harness.run("research", Question())
        harness.run_all()
        fork = ax.fork_sync(first.agent_id, at=2)
        harness.model.say("second")
        harness.run_all()
        assert harness.task(fork).result == "second"
        children = [child for name, child in world.effects if name == "child"]
        assert len(children) == 2
        assert len(set(children)) == 1, "the child that was enqueued before the turn"
        notes = [text for name, text in world.effects if name == "note"]
        assert notes == ["How is Acme?", "the end", "the end"]


def test_a_fork_of_a_fork_keeps_the_changes_before_its_turn() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).call_tool("search", {"query": "b"}).say("1")
        first = harness.run("research", Question())
        second = ax.fork_sync(first.agent_id, at=2, instructions="Be long.", input="Look closer.")
        harness.model.call_tool("search", {"query": "c"}).say("2")
        harness.run_all()
        third = ax.fork_sync(second, at=3, model="gpt-9")
        fourth = ax.fork_sync(second, at=2)
        harness.model.say("3").call_tool("search", {"query": "d"}).say("4")
        harness.run_all()
        assert harness.task(third).result == "3"
        assert harness.task(fourth).result == "4"
        calls = harness.model.calls
        assert calls[5].system_instructions == "Be long."
        assert "Look closer." in [item.get("content") for item in calls[5].input]
        assert calls[6].system_instructions == "Be brief.", (
            "the change belongs to the turn that is taken again"
        )


def test_a_fork_that_crashes_resumes_with_its_changes() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).say("first")
        first = harness.run("research", Question())
        fork = ax.fork_sync(first.agent_id, at=1, instructions="Be long.", input="Look closer.")
        harness.model.call_tool("search", {"query": "b"}).fail(RuntimeError("away"))
        harness.run_all()
        assert harness.task(fork).status is ax.Status.ERROR
        ax.retry_sync(fork)
        harness.model.say("second")
        harness.run_all()
        assert harness.task(fork).result == "second"
        assert searches(world) == ["a", "b"]
        last = harness.model.calls[-1]
        assert last.system_instructions == "Be long."
        assert [item.get("content") for item in last.input][1] == "Look closer."


async def test_a_fork_leaves_the_session_of_the_conversation_alone() -> None:
    session = SQLiteSession("conversation")
    world = World(session)
    async with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).say("first")
        first = await harness.run("research", Question())
        await harness.run_all()
        items = await session.get_items()
        fork = await ax.fork(first.agent_id, at=2)
        harness.model.say("second")
        await harness.run_all()
        assert harness.task(fork).result == "second"
        assert await session.get_items() == items
        assert len(harness.model.calls[-1].input) == 3
    session.close()


def test_a_retry_from_a_turn_takes_it_again() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).call_tool("search", {"query": "b"})
        harness.model.fail(RuntimeError("away"))
        task = harness.run("research", Question())
        assert task.status is ax.Status.ERROR
        before = journal_of(task)
        with pytest.raises(ax.UsageError, match="turns 1 to 3"):
            ax.retry_sync(task.agent_id, from_turn=4)
        assert journal_of(task) == before
        assert harness.task(task.agent_id).status is ax.Status.ERROR
        assert ax.retry_sync(task.agent_id, from_turn=2, by="Ada")
        assert {path for path, _, _ in journal_of(task)} == {"Researcher#1", "Researcher#1/call-1-1"}
        harness.model.call_tool("search", {"query": "c"}).say("done")
        harness.run_all()
        assert harness.task(task.agent_id).result == "done"
        assert searches(world) == ["a", "b", "c"]
        assert "Put back on the queue by Ada from turn 2." in harness.task(task.agent_id).messages


def test_a_retry_from_the_start_ends_a_divergence() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.call_tool("search", {"query": "a"}).fail(RuntimeError("away"))
        task = harness.run("research", Question())
        assert ax.retry_sync(task.agent_id, from_start=True)
        assert journal_of(task) == []
        harness.model.say("done")
        harness.run_all()
        assert harness.task(task.agent_id).result == "done"
        assert not ax.retry_sync(task.agent_id, from_start=True), "it is complete"
        assert journal_of(task)


def test_decisions_stay_on_the_record_when_their_turns_are_taken_again() -> None:
    pool = ax.Pool()

    @function_tool(needs_approval=True)
    async def ship(to: str) -> str:
        return f"shipped to {to}"

    @pool.task("sell")
    async def sell(agent_id: UUID, context: Question) -> str:
        result = await ax.OpenAIRunner(agent_id).run(Agent("Clerk", tools=[ship]), "Sell.")
        return str(result.final_output)

    def decisions(agent_id: UUID) -> list[tuple[str, int | None]]:
        with Session(RUNTIME.engine) as db:
            found = ax.approvals.list(db, agent_id, state="decided")
        return [(call.reason or "", call.run) for call in reversed(found)]

    with ax.testing.harness(pool) as harness:
        task = None
        for attempt in ("first", "second"):
            harness.model.call_tool("ship", {"to": attempt}).fail(RuntimeError("away"))
            task = harness.run("sell", Question()) if task is None else task
            harness.run_all()
            [call] = harness.approvals
            ax.approve_sync(task.agent_id, call.call_id, reason=attempt)
            harness.run_all()
            assert ax.retry_sync(task.agent_id, from_turn=1)
        assert decisions(task.agent_id) == [("first", 1), ("second", 2)]
        with pytest.raises(ax.ApprovalNotFoundError):
            ax.approve_sync(task.agent_id, call.call_id)
        harness.model.call_tool("ship", {"to": "third"}).say("done")
        harness.run_all()
        [call] = harness.approvals
        ax.approve_sync(task.agent_id, call.call_id, reason="third")
        harness.run_all()
        assert harness.task(task.agent_id).result == "done"
        assert decisions(task.agent_id)[-1] == ("third", None)
        fork = ax.fork_sync(task.agent_id, at=2)
        assert decisions(fork.agent_id) == [("third", None)]


@pytest.mark.parametrize("options", [{"from_turn": 1, "from_start": True}, {"run": "A#1"}, {"from_turn": 0}])
def test_a_retry_from_nowhere_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ax.UsageError):
        ax.retry_sync("0193b1c2-0000-7000-8000-000000000000", **options)


@pytest.mark.parametrize("at", [0, -1, True, "2"])
def test_a_turn_is_a_positive_number(at: Any) -> None:
    with pytest.raises(ax.UsageError, match="number of a turn"):
        ax.fork_sync("0193b1c2-0000-7000-8000-000000000000", at=at)


def test_a_turn_that_was_not_reached_is_named() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        harness.model.say("first")
        first = harness.run("research", Question())
        with pytest.raises(ax.UsageError, match="cannot go on at turn 2 of Researcher#1: there is turn 1"):
            ax.fork_sync(first.agent_id, at=2)
        with pytest.raises(ax.UsageError, match=r"has no run Writer#1; it has Researcher#1"):
            ax.fork_sync(first.agent_id, at=1, run="Writer#1")
        note = next(task for task in harness.tasks if task.task_name == "note")
        with pytest.raises(ax.UsageError, match="has recorded no run"):
            ax.fork_sync(note.agent_id, at=1)
        with pytest.raises(ax.ActivityNotFoundError):
            ax.fork_sync(first.agent_id, at=1, metadata_filter={"tenant": "other"})
        assert len(harness.tasks) == 3, "nothing was enqueued"


def test_a_hundred_turns_fork_in_a_second() -> None:
    world = World()
    with ax.testing.harness(world.pool) as harness:
        for number in range(9):
            harness.model.call_tool("search", {"query": f"{number}"})
        harness.model.say("first")
        first = harness.run("research", Question())
        _grow(first.agent_id, 100)
        began = time.process_time()
        fork = ax.fork_sync(first.agent_id, at=100)
        assert time.process_time() - began < patient(1)
        assert len(journal_of(fork)) == 2 + 99 + 2 * 99


def _grow(agent_id: Any, turns: int) -> None:
    """Repeat the recorded turns of a run until there are so many."""
    table: Any = JournalEntry.__table__
    with RUNTIME.engine.begin() as connection:
        rows = connection.execute(select(table).where(table.c.agent_id == agent_id)).mappings().all()
        model = next(row for row in rows if row["kind"] == "model")
        connection.execute(table.delete().where(table.c.agent_id == agent_id, table.c.kind != "run"))
        for turn in range(1, turns + 1):
            value = model["value"].replace("call-1-1", f"call-{turn}") + " " * 10_000
            connection.execute(table.insert(), {**model, "seq": turn, "value": value})
            for seq, kind in enumerate(("intent", "outcome")):
                call = {"path": f"Researcher#1/call-{turn}", "seq": seq, "kind": kind, "value": "{}"}
                connection.execute(table.insert(), {**model, **call})
