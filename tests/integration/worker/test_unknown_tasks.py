"""A task that a worker lacks is left for another worker, and ends only when none has it for a while."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

import agentexec as ax
from agentexec.activity.changes.unknown_tasks import MAX_UNKNOWN_SECONDS, left_message
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment
from tests.waiting import patient, wait_until

both_deployments = pytest.mark.parametrize("deploy", ["embedded", "valkey+postgres"], indirect=True)

NEWER = """
import agentexec as ax
pool = ax.Pool()

@pool.task("newer")
async def newer(agent_id, context):
    return "new"

@pool.task("shared")
async def shared(agent_id, context):
    return "shared"
"""

OLDER = """
import agentexec as ax
pool = ax.Pool()

@pool.task("older")
async def older(agent_id, context):
    return "old"

@pool.task("parent")
async def parent(agent_id, context):
    return await ax.get_result(await ax.enqueue("newer"))
"""


def start(deployment: Deployment, name: str, source: str) -> Any:
    module = deployment.folder / f"{name}.py"
    module.write_text(source)
    return deployment.spawn([sys.executable, "-m", "agentexec", "worker", str(module)])


def age(agent_ids: list[UUID], seconds: float) -> None:
    """Move the last change of tasks into the past, and offer them to the workers."""
    with RUNTIME.engine.begin() as connection:
        for agent_id in agent_ids:
            moment = connection.scalar(select(Activity.updated_at).where(Activity.agent_id == agent_id))
            earlier = moment - timedelta(seconds=seconds)
            connection.execute(
                update(Activity).where(Activity.agent_id == agent_id).values(updated_at=earlier)
            )
    RUNTIME.backend.make_ready(ax.CONF.queue_name, agent_ids)


def is_left(deployment: Deployment, task: ax.Task) -> bool:
    return deployment.detail(task).logs[-1].message == left_message(task.task_name)


@pytest.mark.thorough
@both_deployments
def test_a_task_that_one_worker_lacks_is_run_by_another(deploy: Deploy) -> None:
    deployment = deploy()
    start(deployment, "older", OLDER)
    early = [ax.enqueue_sync("newer", priority=ax.Priority(number % 2)) for number in range(20)]
    canceled = ax.enqueue_sync("newer")
    known = ax.enqueue_sync("older")
    parent = ax.enqueue_sync("parent")
    assert ax.get_result_sync(known, patient(15)) == "old"
    deployment.wait_for(lambda: all(is_left(deployment, task) for task in (*early, canceled)))
    assert ax.cancel_sync(canceled)
    start(deployment, "newer", NEWER)
    late = [ax.enqueue_sync(name) for name in ("newer", "older") * 10]
    results = ax.gather_sync(*early, *late, parent, timeout=patient(60))
    assert results == ["new"] * 20 + ["new", "old"] * 10 + ["new"]
    assert deployment.log.count("No worker here has task newer; leaving it for others") == 1
    detail = deployment.detail(early[0])
    assert detail.attempt == 1
    lines = [line.message for line in detail.logs]
    assert lines.count(left_message("newer")) == 1
    assert deployment.status(canceled) == "canceled"


@pytest.mark.thorough
@both_deployments
def test_a_task_that_no_worker_has_ends_in_error_after_a_bounded_time(deploy: Deploy) -> None:
    deployment = deploy()
    start(deployment, "older", OLDER)
    removed, kept = ax.enqueue_sync("removed"), ax.enqueue_sync("newer")
    deployment.wait_for(lambda: is_left(deployment, removed) and is_left(deployment, kept))
    age([removed.agent_id], MAX_UNKNOWN_SECONDS)
    found = deployment.wait_for_status(removed, "error")
    assert found.error == (
        "no worker had a task named removed for 10 minutes; the tasks of the workers on its queue are older, parent"
    )
    with pytest.raises(ax.TaskFailedError, match="no worker had a task named removed"):
        ax.get_result_sync(removed, patient(5))
    # A worker that has the task is only busy, or starts now: time does not end the task.
    newer = start(deployment, "newer", NEWER)
    deployment.stop(newer)
    left = ax.enqueue_sync("shared")
    deployment.wait_for(lambda: is_left(deployment, left))
    age([left.agent_id], MAX_UNKNOWN_SECONDS)
    # It has been offered again once it is delayed again.
    wait_until(lambda: RUNTIME.backend.depth(ax.CONF.queue_name)[::2] == (0, 0), timeout=15)
    assert deployment.status(left) == "queued"
    assert ax.retry_sync(removed)
    deployment.wait_for(lambda: is_left(deployment, removed))
    assert deployment.status(removed) == "queued"
