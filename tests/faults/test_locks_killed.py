"""kill -9 of the worker whose task has a lock: the task keeps it, and the next one starts after its end."""

from __future__ import annotations

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets


@pytest.mark.thorough
@on_targets("embedded", "postgres", "valkey+postgres")
def test_the_task_of_a_killed_worker_keeps_its_lock(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=4)
    deployment.start()
    tasks = [
        ax.enqueue_sync("slow_once", {"key": key, "seconds": 1}, lock_key="one") for key in ("a", "b", "c")
    ]
    deployment.wait_for_start("a")
    deployment.process_of("a").kill()
    deployment.wait_for_start("a", times=2)
    deployment.wait_for_ends(tasks)
    assert deployment.endings(tasks) == [["complete"]] * 3
    steps = [line.split()[:2] for line in deployment.ledger_file.read_text().splitlines()]
    expected = [["start", "a"], *([event, key] for key in "abc" for event in ("start", "end"))]
    assert [step for step in steps if step[0] in ("start", "end")] == expected
