"""Handlers of failures are called by real workers, also when every process was killed right after the failure."""

from __future__ import annotations

import json
import sys

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets

MODULE = """
import os, signal
import agentexec as ax

pool = ax.Pool()


@pool.on_failure
def note(agent_id, context: ax.TaskFailure):
    with open("failures", "a") as file:
        file.write(context.model_dump_json() + "\\n")


@pool.task("raises")
async def raises(agent_id, context):
    raise ValueError("no luck")


@pool.task("dies")
async def dies(agent_id, context):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_failures_and_crashes_call_the_handler_although_everything_is_killed(deploy: Deploy) -> None:
    deployment = deploy(max_crashes=2)
    (deployment.folder / "my_worker.py").write_text(MODULE)
    command = [sys.executable, "-m", "agentexec", "worker", "my_worker"]
    told = deployment.folder / "failures"
    deployment.spawn(command)
    raises = ax.enqueue_sync("raises", {"n": 1})
    deployment.wait_for(lambda: deployment.status(raises) == "error")
    for process in deployment.processes():
        process.kill()
    deployment.spawn(command)

    def is_told_of(task: ax.Task) -> bool:
        return told.exists() and str(task.agent_id) in told.read_text()

    deployment.wait_for(lambda: is_told_of(raises), timeout=30)
    dies = ax.enqueue_sync("dies")
    deployment.wait_for(lambda: is_told_of(dies), timeout=30)
    failures = [json.loads(line) for line in told.read_text().splitlines()]
    by_task = {failure["agent_id"]: failure for failure in failures}
    assert by_task[str(raises.agent_id)]["error"] == "ValueError: no luck"
    assert by_task[str(raises.agent_id)]["context"] == {"n": 1}
    assert "worker process" in by_task[str(dies.agent_id)]["error"]
