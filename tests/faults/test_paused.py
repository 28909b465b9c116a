"""Workers that are slow, or stopped for a while, and come back."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets
from tests.waiting import patient

FROZEN_MODULE = Path(__file__).parent / "frozen_module.py"


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_what_a_worker_does_after_its_lease_was_lost_is_refused(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=1)
    deployment.start()
    task = deployment.enqueue("tells", "a", seconds=1)
    deployment.wait_for_start("a")
    zombie = deployment.process_of("a")
    zombie.suspend()
    deployment.wait_for_start("a", times=2)
    zombie.resume()  # and ends its attempt while the other worker runs the task
    successor = deployment.process_of("a")
    assert successor != zombie
    deployment.wait_for(lambda: "was refused" in deployment.log)
    assert ax.get_result_sync(task, timeout=patient(10)) == successor.pid, "the result is the successor's"
    detail = deployment.detail(task)
    assert deployment.ledger("end") == {"a": 2}, "the zombie did reach its end"
    assert deployment.endings([task]) == [["complete"]]
    assert [line.message for line in detail.logs if line.message.startswith("Seen to by")] == [
        f"Seen to by {successor.pid}"
    ]
    deployment.wait_for(lambda: deployment.depth() == 0)
    # Both workers take tasks again.
    again = {key: deployment.enqueue("work", key, seconds=0.5) for key in "bc"}
    deployment.wait_for_ends(again.values())
    assert {deployment.process_of(key) for key in again} == {zombie, successor}


@on_targets("embedded", "valkey+postgres")
def test_a_healthy_task_longer_than_its_lease_runs_once_even_if_it_blocks_the_event_loop(
    deploy: Deploy,
) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=2, lease_seconds=1)
    deployment.start()
    tasks = {name: deployment.enqueue(name, name, seconds=2.5) for name in ("work", "sync_work", "blocks")}
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 3
    assert deployment.ledger("start") == dict.fromkeys(tasks, 1)


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_a_worker_that_was_frozen_right_before_a_call_does_not_make_it_after_its_successor(
    deploy: Deploy,
) -> None:
    """Model calls, streamed ones, and the start of a handler: each costs or acts, and each was made by the successor."""
    deployment = deploy(num_workers=2, worker_concurrency=1, lease_seconds=1)
    deployment.spawn([sys.executable, "-m", "agentexec", "worker", str(FROZEN_MODULE)], FREEZES="1")
    names = ("agent", "streaming_agent", "handler")
    for name in names:
        task = deployment.enqueue(name, name)
        deployment.wait_for_start(name)
        frozen = deployment.process_of(name)
        deployment.wait_for(lambda frozen=frozen: frozen.status() == psutil.STATUS_STOPPED)
        assert ax.get_result_sync(task, timeout=patient(30)) in ("done", "acted")
        frozen.resume()
        deployment.wait_for(lambda task=task: f"Lost the lease of task {task.agent_id}" in deployment.log)
    assert deployment.stop() == 0  # after everything has ended that runs
    assert {event: deployment.ledger(event) for event in ("start", "model", "act")} == {
        "start": dict.fromkeys(names, 2),
        "model": {"agent": 2, "streaming_agent": 2},
        "act": dict.fromkeys(names, 1),
    }


@pytest.mark.thorough
@on_targets("postgres", "mariadb")
def test_a_worker_that_was_frozen_with_the_locks_of_its_leases_keeps_nobody_from_its_task(
    deploy: Deploy,
) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=1, lease_seconds=1)
    deployment.spawn([sys.executable, "-m", "agentexec", "worker", str(FROZEN_MODULE)])
    task = deployment.enqueue("locker", "a")
    deployment.wait_for_start("a")
    frozen = deployment.process_of("a")
    deployment.wait_for(lambda: frozen.status() == psutil.STATUS_STOPPED)
    others = [deployment.enqueue("handler", key) for key in "bc"]
    deployment.wait_for_ends(others)
    assert deployment.status(task) == "running"
    assert ax.get_result_sync(task, timeout=patient(60)) == "acted"
    frozen.resume()  # and finds its transaction ended
    deployment.wait_for(lambda: f"Lost the lease of task {task.agent_id}" in deployment.log)
    assert deployment.stop() == 0
    assert deployment.endings([task, *others]) == [["complete"]] * 3


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres", alternates=False)
def test_a_host_that_was_frozen_until_others_took_it_for_dead_makes_no_call_for_its_tasks(
    deploy: Deploy,
) -> None:
    """Its leases are far from their end, but its tasks were given back long before."""
    deployment = deploy(num_workers=1, worker_concurrency=1, lease_seconds=600, host_timeout=2)
    command = [sys.executable, "-m", "agentexec", "worker", str(FROZEN_MODULE)]
    supervisor = deployment.spawn(command, FREEZES="1")
    task = deployment.enqueue("agent", "a")
    deployment.wait_for_start("a")
    worker = deployment.process_of("a")
    deployment.wait_for(lambda: worker.status() == psutil.STATUS_STOPPED)
    others = [process for process in deployment.processes() if process != worker]
    for process in others:
        process.suspend()
    deployment.spawn(command)
    assert ax.get_result_sync(task, timeout=patient(30)) == "done"
    worker.resume()
    deployment.wait_for(lambda: f"Lost the lease of task {task.agent_id}" in deployment.log)
    for process in others:
        process.resume()
    assert [deployment.stop(), deployment.stop(supervisor)] == [0, 0]
    assert deployment.ledger("model") == {"a": 2}
    assert deployment.ledger("act") == {"a": 1}
