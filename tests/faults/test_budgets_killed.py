"""Agents of one tenant that share a budget, their workers killed at random: the ledger is what the journal has recorded."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.budget_models import Budget
from agentexec.activity.models import Activity
from agentexec.journal.models import JournalEntry
from agentexec.runtime import RUNTIME
from tests.deployment import REPOSITORY, Deploy, Deployment, on_one_target, on_targets
from tests.faults.budget_module import MAX_INPUT, MAX_OUTPUT

MODULE = Path(__file__).parent / "budget_module.py"
TASKS = 20
LIMIT = 9000


@pytest.mark.thorough
@pytest.mark.timeout(240)
@on_targets("embedded", "postgres", "valkey+postgres", alternates=False)
def test_a_shared_budget_holds_while_workers_are_killed(deploy: Deploy) -> None:
    deployment = deploy(
        num_workers=2, worker_concurrency=TASKS // 2, max_crashes=50, budgets=f"tenant={LIMIT} tokens/month"
    )
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    deployment.spawn(command, PYTHONPATH=str(REPOSITORY))
    tasks = [
        ax.enqueue_sync("spend", {"key": str(number), "times": number}, metadata={"tenant": "acme"})
        for number in range(TASKS)
    ]
    assert _kill_until_ended(deployment, tasks) > 2
    deployment.wait_for_ends(tasks, timeout=90)
    _audit()


@pytest.mark.thorough
@on_one_target("embedded", "postgres", alternates=False)
def test_a_budget_set_between_kills_lets_the_tasks_go_on(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1, max_crashes=50)
    deployment.spawn([sys.executable, "-m", "agentexec", "worker", str(MODULE)], PYTHONPATH=str(REPOSITORY))
    tasks = [
        ax.enqueue_sync("spend", {"key": str(number), "times": number}, budget="300 tokens", on_budget="ask")
        for number in range(4)
    ]
    # The first limit is still too low for most.
    for limit in ("500 tokens", "100000 tokens"):
        deployment.wait_for(lambda: _all_wait_or_have_ended(deployment, tasks), timeout=60)
        for number, task in enumerate(tasks):
            if number % 2 == 0:
                _kill_a_worker(deployment)
            ax.set_budget_sync(task, limit)
    deployment.wait_for_ends(tasks, timeout=90)
    with Session(RUNTIME.engine) as db:
        facts = list(db.scalars(select(JournalEntry.value).where(JournalEntry.kind == "model")))
        accounts = list(db.scalars(select(Budget)))
    assert {deployment.status(task) for task in tasks} == {ax.Status.COMPLETE}
    recorded = [json.loads(value)["usage"] for value in facts]
    assert sum(account.spent_tokens for account in accounts) == sum(
        usage["input_tokens"] + usage["output_tokens"] for usage in recorded
    )


def _all_wait_or_have_ended(deployment: Deployment, tasks: list[ax.Task]) -> bool:
    with Session(RUNTIME.engine) as db:
        asking = {call.agent_id for call in ax.approvals.list(db)}
    return all(task.agent_id in asking or ax.Status(deployment.status(task)).final for task in tasks)


def _kill_a_worker(deployment: Deployment) -> None:
    with contextlib.suppress(psutil.Error, IndexError, AssertionError):  # between two worker processes
        deployment.workers()[0].kill()


def _kill_until_ended(deployment: Deployment, tasks: list[ax.Task]) -> int:
    """Kill a worker process about every half second, for a while or until all tasks have ended; return how many."""
    chance, kills, until = random.Random(7), 0, time.monotonic() + 8
    while time.monotonic() < until and not all(ax.Status(deployment.status(task)).final for task in tasks):
        time.sleep(chance.uniform(0.2, 0.8))
        try:
            chance.choice(deployment.workers()).kill()
            kills += 1
        except (psutil.Error, AssertionError, IndexError):
            continue  # between two worker processes
    return kills


def _audit() -> None:
    with Session(RUNTIME.engine) as db:
        rows = list(db.scalars(select(Activity)))
        accounts = list(db.scalars(select(Budget)))
        facts = list(db.scalars(select(JournalEntry.value).where(JournalEntry.kind == "model")))
        shown = ax.activity.spent(db).budgets
    statuses = {row.status for row in rows}
    assert statuses <= {ax.Status.COMPLETE, ax.Status.ERROR}
    assert ax.Status.ERROR in statuses, "the limit was never reached"
    assert all("BudgetExceededError" in row.error for row in rows if row.status is ax.Status.ERROR)

    recorded = [json.loads(value)["usage"] for value in facts]
    spent = sum(usage["input_tokens"] + usage["output_tokens"] for usage in recorded)
    assert sum(account.spent_tokens for account in accounts) == spent
    assert sum((row.input_tokens or 0) + (row.output_tokens or 0) for row in rows) == spent
    in_flight = TASKS * (MAX_INPUT + MAX_OUTPUT)
    assert all(account.spent_tokens <= LIMIT + in_flight for account in accounts)
    assert [budget.reserved for budget in shown] == [0] * len(shown)
