"""Workers, and the applications that enqueue, behind a PgBouncer in transaction mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import agentexec as ax
from tests.deployment import REPOSITORY, Deploy, on_targets

MODULE = Path(__file__).parent / "pooler_module.py"
NOTICE = "A connection pooler in transaction mode serves the database"


@pytest.mark.thorough
@pytest.mark.timeout(180)
@on_targets("pgbouncer", "valkey+pgbouncer", alternates=False)
def test_all_kinds_of_tasks_complete_and_the_worker_says_once_that_a_pooler_is_there(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2)
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    deployment.spawn(command, PYTHONPATH=str(REPOSITORY))
    tasks = [
        ax.enqueue_sync(name, {"key": f"{name}-{number}", "number": number})
        for number in range(40)
        for name in ("double", "reports", "asks", "waits", "Steps")
    ]
    for number in range(40):
        ax.send_event_sync("go", f"waits-{number}", {"number": number})
    deployment.wait_for_ends(tasks, timeout=120)
    assert {deployment.status(task) for task in tasks} == {"complete"}
    results = [ax.get_result_sync(task) for task in tasks[-5:]]
    assert results == [78, "reports-39", 78, {"number": 39}, {"number": 42}]
    assert ax.Tracker("pooled", "reports").count == 40
    assert deployment.stop() == 0
    assert deployment.log.count(NOTICE) == 1
    assert "Traceback" not in deployment.log
