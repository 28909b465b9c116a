"""The log of real workers: JSON lines of tasks, complete also when a worker process is killed."""

from __future__ import annotations

import json
import os
import sys

import agentexec as ax
from tests.deployment import Deploy, on_targets

MODULE = """
import logging, os, signal
import agentexec as ax

pool = ax.Pool()
log = logging.getLogger("myapp")


@pool.task("plain")
def plain(agent_id, context):
    log.info("in a thread", extra={"tenant": "acme"})


@pool.task("dies")
async def dies(agent_id, context):
    log.info("about to die")
    print("last words")
    print("and more", end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@on_targets("embedded", alternates=False)
def test_lines_and_prints_of_tasks_are_json_and_none_is_lost_when_the_process_is_killed(
    deploy: Deploy,
) -> None:
    deployment = deploy(max_crashes=1)
    (deployment.folder / "my_worker.py").write_text(MODULE)
    command = [sys.executable, "-m", "agentexec", "worker", "my_worker", "--log-format", "json"]
    deployment.spawn(command)
    plain = ax.enqueue_sync("plain")
    deployment.wait_for(lambda: deployment.status(plain) == "complete")
    dies = ax.enqueue_sync("dies")
    deployment.wait_for(lambda: deployment.status(dies) == "error")
    deployment.stop()
    lines = [json.loads(line) for line in deployment.log.splitlines()]
    assert {line["process"] for line in lines} == {"supervisor", "maintenance", "worker-1"}
    of_tasks = [
        (line["task"], line["agent_id"], line["attempt"], line["logger"], line["message"], line.get("tenant"))
        for line in lines
        if "task" in line
    ]
    assert of_tasks == [
        ("plain", str(plain.agent_id), 1, "myapp", "in a thread", "acme"),
        ("dies", str(dies.agent_id), 1, "myapp", "about to die", None),
        ("dies", str(dies.agent_id), 1, "stdout", "last words", None),
        ("dies", str(dies.agent_id), 1, "stdout", "and more", None),
    ]
    assert all(line["pid"] != os.getpid() and line["time"].endswith("Z") for line in lines)
