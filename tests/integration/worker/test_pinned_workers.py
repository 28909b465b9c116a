"""Workers that are pinned to a version: each runs what its version began, and the newest one begins the new tasks."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import psutil
import pytest

import agentexec as ax
from agentexec.activity.changes.versions import waiting_message
from tests.deployment import Deploy, Deployment, run_in_process
from tests.waiting import patient, wait_until

SOURCE = """
import os
import agentexec as ax
pool = ax.Pool()
VERSION = os.environ["AGENTEXEC_WORKER_VERSION"]

@pool.task("work")
async def work(agent_id, context):
    runner = ax.OpenAIRunner(agent_id)
    begun = await runner.step("begin", lambda: VERSION)
    await ax.wait_for_event("go", str(context["n"]))
    return f"{begun}, then {VERSION}"

@pool.task("short")
async def short(agent_id, context):
    return VERSION
"""


def start(deployment: Deployment, version: str) -> Any:
    module = deployment.folder / "shop.py"
    module.write_text(SOURCE)
    command = [sys.executable, "-m", "agentexec", "worker", str(module), "-w", "1", "--pin-versions"]
    return deployment.spawn(command, AGENTEXEC_WORKER_VERSION=version)


def begin(deployment: Deployment, number: int) -> ax.Task:
    task = ax.enqueue_sync("work", {"n": number})
    wait_until(lambda: "Waiting for event" in deployment.detail(task).logs[-1].message, timeout=20)
    return task


def kill(supervisor: Any) -> None:
    processes = [psutil.Process(supervisor.pid), *psutil.Process(supervisor.pid).children(recursive=True)]
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.thorough
@pytest.mark.parametrize("deploy", ["embedded", "valkey+postgres"], indirect=True)
def test_old_workers_finish_their_runs_and_the_newest_begin_the_new_ones(deploy: Deploy) -> None:
    deployment = deploy()
    old = start(deployment, "1")
    first, second, third = (begin(deployment, number) for number in (1, 2, 3))
    assert deployment.detail(first).version == "1"
    start(deployment, "2")

    def is_begun_by_newer() -> bool:
        return ax.get_result_sync(ax.enqueue_sync("short", {}), patient(20)) == "2"

    wait_until(is_begun_by_newer, timeout=40)
    # From now on the old worker leaves all new ones.
    wait_until(lambda: all(is_begun_by_newer() for _ in range(3)), timeout=40)
    ax.send_event_sync("go", "1")
    assert ax.get_result_sync(first, patient(30)) == "1, then 1"

    kill(old)
    ax.send_event_sync("go", "2")
    wait_until(lambda: deployment.detail(second).logs[-1].message == waiting_message("1"), timeout=30)
    wait_until(
        lambda: "no worker of the queue" in run_in_process(deployment, "show", str(second.agent_id))[1],
        timeout=40,
    )
    assert "began with version 1, and no worker" in run_in_process(deployment, "doctor")[1]
    attempts = deployment.detail(second).attempt

    start(deployment, "1")
    assert ax.get_result_sync(second, patient(90)) == "1, then 1"
    assert deployment.detail(second).attempt == attempts + 1
    ax.send_event_sync("go", "3")
    assert ax.get_result_sync(third, patient(60)) == "1, then 1"
    assert begin_and_finish(deployment) == "2, then 2"


def begin_and_finish(deployment: Deployment) -> str:
    task = begin(deployment, 4)
    ax.send_event_sync("go", "4")
    return str(ax.get_result_sync(task, patient(30)))


@pytest.mark.thorough
@pytest.mark.parametrize("deploy", ["embedded"], indirect=True)
def test_pinned_workers_without_versions_do_not_start(deploy: Deploy) -> None:
    deployment = deploy()
    (deployment.folder / "shop.py").write_text(
        SOURCE.replace('os.environ["AGENTEXEC_WORKER_VERSION"]', '"x"')
    )
    command = [sys.executable, "-m", "agentexec", "worker", "shop.py", "--pin-versions"]
    assert deployment.spawn(command, ready=False).wait(patient(30)) == 2
    assert "--pin-versions needs a version for each task, and work has none" in deployment.log
