"""The examples of budgets, and of fork, export and replay, with scripted models."""

from __future__ import annotations

from pathlib import Path

import agentexec as ax
from agentexec.client.run_records import dump_run, read_run
from agentexec.db.transactions import reading
from agentexec.runtime import RUNTIME
from agentexec.values.presentation import Presenter
from examples.budgets import worker as budgets
from examples.fork import worker as forks


def test_the_example_of_budgets_asks_for_more_and_sums_up() -> None:
    with ax.testing.harness(budgets.pool) as harness:
        for _ in range(3):
            harness.model.call_tool("search", {"query": "Acme"})
        harness.model.say("Acme makes anvils.")
        task = harness.enqueue("research", {"company": "Acme"}, budget="480 tokens")
        harness.run_all()
        [question] = harness.approvals
        assert question.tool == "raise_budget"
        assert ax.set_budget_sync(task, "5000 tokens")
        harness.run_all()
        assert harness.task(task).result == "Acme makes anvils."
        harness.model.say("Nothing is known.")
        summed_up = harness.run("overview", {"company": "Acme"}, budget="10 tokens")
        assert summed_up.result == "Nothing is known."
        assert "The budget is used up; summing up." in summed_up.messages


def test_the_example_of_forks_changes_a_turn_and_replays_a_run(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    with ax.testing.harness(forks.pool) as harness:
        harness.model.call_tool("find_order", {"number": 7}).say("It left this morning.")
        task = harness.run("support", {"question": "Where is my order 7?"})
        harness.model.say("Sie ist unterwegs.")
        fork = ax.fork_sync(task.agent_id, at=2, instructions="Answer in German, in one sentence.")
        harness.run_all()
        assert harness.task(fork).result == "Sie ist unterwegs."
        assert harness.model.calls[-1].system_instructions == "Answer in German, in one sentence."
        assert len(harness.model.calls) == 3, "the first turn is not taken again"
        with reading(RUNTIME.engine) as connection:
            file.write_text(dump_run(read_run(connection, task.agent_id, Presenter(set(), None).present)))
    assert ax.testing.replay(file, forks.pool).result == "It left this morning."
