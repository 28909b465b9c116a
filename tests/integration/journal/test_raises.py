"""Budgets that are set while a task asks for more, or by a process that dies: no question is left without an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from agents import Agent
from agents.testing import ScriptedModel, assistant_message
from sqlalchemy import select, text, update

import agentexec as ax
from agentexec.arguments.budgets import TaskBudget, dump_budget, parse_limit
from agentexec.client import budgets as client
from agentexec.errors import WaitingForApproval
from agentexec.journal import approvals
from agentexec.journal.models import Approval
from agentexec.journal.scopes import current_scope
from agentexec.journal.store import ACTIVITY
from agentexec.runners import budgets
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask
from tests.stores import KEY
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def database(tables_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Encrypted, because questions are found by what they are about.
    monkeypatch.setattr(ax.CONF, "encryption_keys", KEY)
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def task(database: None) -> ReplayableTask:
    return ReplayableTask()


@pytest.fixture(params=["task", "parent"])
def owner(request: pytest.FixtureRequest, task: ReplayableTask) -> UUID:
    """The task whose limit is in the way: the task itself, or its parent."""
    return task.agent_id if request.param == "task" else ReplayableTask().agent_id


async def attempt(task: ReplayableTask, owner: UUID) -> str:
    limit = parse_limit("10 tokens")
    budget = TaskBudget(limit, "ask")
    if owner != task.agent_id:
        budget = TaskBudget(None, "ask", ((owner, limit),))
        with RUNTIME.engine.begin() as connection:
            mine = ACTIVITY.c.agent_id == task.agent_id
            connection.execute(update(ACTIVITY).where(mine).values(budget=dump_budget(budget)))

    async def handler() -> str:
        current_scope().recorder.budget.task = budget
        agent = Agent("Researcher", model=ScriptedModel([[assistant_message("Done.")]]))
        return str((await ax.OpenAIRunner(task.agent_id).run(agent, "Go.")).final_output)

    return await task.attempt(handler)


def questions(task: ReplayableTask) -> list[Any]:
    with RUNTIME.engine.connect() as connection:
        return list(connection.execute(select(Approval).where(Approval.agent_id == task.agent_id)))


async def test_a_limit_raised_just_before_its_question_opens_needs_no_answer(
    task: ReplayableTask, owner: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, limits = budgets.reserve, ["20 tokens", "5000 tokens"]

    def reserve_and_raise(*arguments: Any) -> Any:
        outcome = reserve(*arguments)
        if limits:
            assert ax.set_budget_sync(owner, limits.pop(0))
        return outcome

    monkeypatch.setattr(budgets, "reserve", reserve_and_raise)
    assert await attempt(task, owner) == "Done."
    assert questions(task) == []


async def test_a_limit_raised_while_its_question_opens_answers_it(
    task: ReplayableTask, owner: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, setters = approvals._insert, []

    def insert_while_the_limit_is_raised(connection: Any, *arguments: Any) -> None:
        setters.append(threading.Thread(target=ax.set_budget_sync, args=(owner, "5000 tokens")))
        setters[0].start()
        wait_until(lambda: not setters[0].is_alive() or waits_for_lock())
        insert(connection, *arguments)

    monkeypatch.setattr(approvals, "_insert", insert_while_the_limit_is_raised)
    try:
        answer = await attempt(task, owner)
    except WaitingForApproval:
        setters[0].join()
        answer = await attempt(task, owner)
    assert answer == "Done."
    assert [row.status for row in questions(task)] == ["approved"]


def waits_for_lock() -> bool:
    """Return True if a transaction waits for another one; without looking, where there is one writer at a time."""
    queries = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }
    query = queries.get(RUNTIME.engine.dialect.name)
    if query is None:
        return True
    with RUNTIME.engine.connect() as connection:
        return bool(connection.execute(text(query)).scalar())


async def test_a_question_that_a_killed_process_leaves_is_answered_by_the_new_limit(
    task: ReplayableTask, owner: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WaitingForApproval):
        await attempt(task, owner)

    def die(*_: Any, **__: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(client, "note_answers", die)
    with pytest.raises(SystemExit):
        ax.set_budget_sync(owner, "5000 tokens", by="Ada", source="slack #ops")
    [row] = questions(task)
    assert (row.status, row.decided_by, row.decided_from) == ("approved", "Ada", "slack #ops")
    assert row.wake_at is not None, "the reconciler tells the queue"
    assert await attempt(task, owner) == "Done."


async def test_a_limit_that_is_still_too_low_is_asked_about_again(task: ReplayableTask) -> None:
    for limit, number in (("20 tokens", 1), ("30 tokens", 2), ("5000 tokens", 3)):
        with pytest.raises(WaitingForApproval):
            await attempt(task, task.agent_id)
        assert [row.status for row in questions(task)].count("pending") == 1
        assert len(questions(task)) == number
        assert ax.set_budget_sync(task.agent_id, limit)
    assert await attempt(task, task.agent_id) == "Done."
