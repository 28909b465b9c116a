"""kill -9 of a process that forks a task: the fork is there with everything, or not at all."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import event, func, insert, select, update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.client import fork as forking
from agentexec.db.clock import utc_now
from agentexec.journal.models import JournalEntry
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment, on_targets


class KilledError(BaseException):
    """Stand-in for SIGKILL: nothing of ours handles it, and the database rolls the transaction back."""


def failed_task(deployment: Deployment) -> ax.Task:
    """Return a task that has failed after two turns of an agent, the first of which called a tool."""
    task = deployment.enqueue("work", "a")
    call = {"output": [{"type": "function_call", "call_id": "call_1", "name": "search", "arguments": "{}"}]}
    facts: list[tuple[str, int, str, Any]] = [
        ("Agent#1", 0, "run", {}),
        ("Agent#1", 1, "model", call),
        ("Agent#1/call_1", 0, "intent", {"name": "search"}),
        ("Agent#1/call_1", 1, "outcome", {}),
        ("Agent#1", 2, "model", {"output": []}),
    ]
    with RUNTIME.engine.begin() as connection:
        for path, seq, kind, value in facts:
            row = {"path": path, "seq": seq, "kind": kind, "value": json.dumps(value), "input_hash": "x"}
            row |= {"agent_id": task.agent_id, "epoch": 1, "created_at": utc_now()}
            connection.execute(insert(JournalEntry), row)
        ended = update(Activity).where(Activity.agent_id == task.agent_id)
        connection.execute(ended.values(status=ax.Status.ERROR, epoch=1, attempt=1))
    RUNTIME.backend.remove(ax.CONF.queue_name, [task.agent_id])
    return task


def counts() -> tuple[int, int]:
    """Return the number of tasks, and of facts in journals."""
    with RUNTIME.engine.connect() as connection:
        tasks, facts = (
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (Activity, JournalEntry)
        )
    return tasks, facts


def kill_at_statement(number: int) -> Any:
    """Raise KilledError right before the statement of this number that writes."""
    seen = 0

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        if statement.lstrip().upper().startswith(("INSERT", "WITH")):
            seen += 1
            if seen == number:
                raise KilledError

    event.listen(RUNTIME.engine, "before_cursor_execute", before)
    return before


@on_targets("embedded", "postgres", "valkey+postgres", "valkey+mariadb", alternates=False)
def test_a_fork_that_is_killed_at_any_write_leaves_nothing(deploy: Deploy) -> None:
    deployment = deploy()
    task = failed_task(deployment)
    before = counts()
    number = 0
    while True:
        number += 1
        listener = kill_at_statement(number)
        try:
            fork = ax.fork_sync(task, at=2)
            break
        except KilledError:
            assert counts() == before
            assert deployment.depth() == 0
        finally:
            event.remove(RUNTIME.engine, "before_cursor_execute", listener)
    assert number > 3, "it was killed at several writes"
    assert counts() == (before[0] + 1, before[1] + 4 + 1), "the turn before, and what it comes from"
    assert deployment.depth() == 1
    assert ax.retry_sync(task, from_turn=1)
    assert counts()[1] == 1 + 5, "the fork keeps its copy"
    deployment.start()
    deployment.wait_for(lambda: deployment.status(fork) == deployment.status(task) == "complete")


@pytest.mark.thorough
@on_targets("valkey+sqlite")
def test_a_fork_that_was_never_pushed_is_run(deploy: Deploy) -> None:
    deployment = deploy()
    task = failed_task(deployment)
    made: list[Any] = []

    def kill(queues: Any) -> None:
        made.extend(queues.values())
        raise KilledError

    with mock.patch.object(forking, "push_requeued", kill), pytest.raises(KilledError):
        ax.fork_sync(task, at=2)
    assert deployment.depth() == 0
    deployment.start()
    [[entry]] = made
    deployment.wait_for(lambda: deployment.status(entry) == "complete")
