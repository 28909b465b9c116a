"""A debounced task runs once, a while after the last enqueue, in real workers and in the harness."""

from __future__ import annotations

import sys
import time
from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets

MODULE = """
import time
import agentexec as ax

pool = ax.Pool()


@pool.task("index")
async def index(agent_id, context):
    with open("runs", "a") as file:
        file.write(f"{context['version']} {time.time()}\\n")
"""


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_a_debounced_task_runs_once_after_the_last_enqueue(deploy: Deploy) -> None:
    deployment = deploy()
    (deployment.folder / "my_worker.py").write_text(MODULE)
    deployment.spawn([sys.executable, "-m", "agentexec", "worker", "my_worker"])
    tasks = []
    for version in range(6):
        tasks.append(ax.enqueue_sync("index", {"version": version}, debounce=2))
        last = time.time()
        time.sleep(0.7)  # the entry in the queue becomes due while further enqueues come
    assert len({task.agent_id for task in tasks}) == 1
    deployment.wait_for_ends(tasks[:1])
    [line] = (deployment.folder / "runs").read_text().splitlines()
    version, ran = line.split()
    assert version == "5"
    assert float(ran) - last >= 1.9
    assert deployment.detail(tasks[0]).attempt == 1
    again = ax.enqueue_sync("index", {"version": 6}, debounce=0.1)
    assert again != tasks[0]
    deployment.wait_for_ends([again])


async def test_the_harness_does_not_wait() -> None:
    pool = ax.Pool(database_url="sqlite://")
    ran: list[int] = []

    @pool.task("index", debounce=3600)
    async def index(agent_id: UUID, context: dict[str, Any]) -> None:
        ran.append(context["version"])

    async with ax.testing.harness(pool) as harness:
        first = await harness.enqueue("index", {"version": 1})
        assert await harness.enqueue("index", {"version": 2}) == first
        await harness.run_all()
        await harness.run("index", {"version": 3})
    assert ran == [2, 3]


async def test_a_task_that_runs_again_finds_the_debounced_task_that_it_enqueued() -> None:
    pool = ax.Pool(database_url="sqlite://")
    enqueued: list[UUID] = []

    @pool.task("index", debounce=60)
    async def index(agent_id: UUID, context: dict[str, Any]) -> None:
        """Do nothing."""

    @pool.task("save", retries=1)
    async def save(agent_id: UUID, context: dict[str, Any]) -> None:
        enqueued.append((await ax.enqueue("index", {"version": 1})).agent_id)
        if len(enqueued) == 1:
            raise ConnectionError("try again")

    async with ax.testing.harness(pool) as harness:
        await harness.run("save", {})
        assert enqueued[0] == enqueued[1]
        assert [task.task_name for task in harness.tasks] == ["save", "index"]
