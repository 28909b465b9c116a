"""Pipelines and waits under kill -9, and with fewer slots than waiting tasks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentexec as ax
from tests.deployment import REPOSITORY, Deploy, Deployment, on_one_target, on_targets
from tests.waiting import patient

MODULE = Path(__file__).parent / "workflow_module.py"
STEPS = ("one", "two", "three")
PIPELINES = int(os.environ.get("AGENTEXEC_TEST_PIPELINES", "50"))
"""Number of pipelines of four steps that must survive random kills."""

everywhere = on_targets("embedded", "valkey+postgres", alternates=False)


def work(deployment: Deployment) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    return deployment.spawn(command, PYTHONPATH=str(REPOSITORY))


def ask(name: str, key: str, **job: Any) -> ax.Task:
    return ax.enqueue_sync(name, {"key": key, **job})


@pytest.mark.thorough
@everywhere
def test_twenty_pipelines_with_children_complete_on_one_slot(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1, worker_concurrency=1)
    tasks = [ask("FanOut", f"p{number}") for number in range(20)]
    work(deployment)
    deployment.wait_for_ends(tasks, timeout=80)
    assert {deployment.status(task) for task in tasks} == {"complete"}
    assert ax.get_result_sync(tasks[0])["values"] == [0, 1, 2, 3, 4]
    for step in STEPS:
        assert set(deployment.ledger(f"end-{step}").values()) == {1}
    assert len(deployment.ledger("child")) == 20 * 15
    assert set(deployment.ledger("child").values()) == {1}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_nesting_deeper_than_there_are_slots(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1, worker_concurrency=1)
    work(deployment)
    tasks = [ask("nested", f"n{number}", number=4) for number in range(5)]
    tasks += [ask("sync_nested", f"s{number}", number=4) for number in range(5)]
    deployment.wait_for_ends(tasks, timeout=40)
    assert [ax.get_result_sync(task) for task in tasks] == [5] * 10


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_task_that_has_waited_comes_back_to_a_slot_of_its_own(deploy: Deploy) -> None:
    """Two slots, and never more than two tasks that compute."""
    deployment = deploy(num_workers=1, worker_concurrency=2)
    work(deployment)
    started = time.monotonic()
    tasks = [ask("child", f"c{number}", seconds=0.5) for number in range(6)]
    tasks += [ask("nested", f"n{number}", number=2) for number in range(4)]
    deployment.wait_for_ends(tasks, timeout=30)
    assert time.monotonic() - started > 1.4  # six half seconds, two at a time
    assert {deployment.status(task) for task in tasks} == {"complete"}


INSTANTS = [f"{instant}-{step}" for step in STEPS for instant in ("begin", "enqueued", "end")]


@pytest.mark.timeout(180)
@everywhere
def test_a_kill_inside_every_step_and_at_its_boundaries(deploy: Deploy) -> None:
    """A kill at a step's beginning follows the record of the previous step; one at its end precedes its own record."""
    # Several processes: one that crashes repeatedly is replaced later each time.
    deployment = deploy(num_workers=4, worker_concurrency=20, max_crashes=50)
    for instant in INSTANTS:
        deployment.arm(f"{instant}-{instant}")
    work(deployment)
    tasks: dict[str, ax.Task] = {}
    for instant in INSTANTS:
        # One after the other: a kill also loses what its neighbors have finished but not recorded.
        tasks[instant] = ask("FanOut", instant)
        deployment.wait_for_ends([tasks[instant]], timeout=30)
    for instant, task in tasks.items():
        assert deployment.fault_fired(f"{instant}-{instant}")
        assert deployment.status(task) == "complete", deployment.detail(task).error
        detail = deployment.detail(task)
        assert len(detail.children) == 15
        assert {child.status for child in detail.children} == {"complete"}
    for step in STEPS:
        # A finished step finished once, whatever happened before and after.
        assert deployment.ledger(f"end-{step}") == dict.fromkeys(INSTANTS, 1)
    assert deployment.endings(tasks.values()) == [["complete"]] * len(tasks)


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_poison_child_does_not_end_those_that_wait_beside_it(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1, worker_concurrency=4, max_crashes=3)
    work(deployment)
    waiting = [ask("asks_poison", "bad"), ask("nested", "n", number=1), ask("waiter", "event")]
    deployment.wait_for_status(waiting[0], "complete", timeout=40)
    assert ax.get_result_sync(waiting[0]) == "TaskFailedError"
    ax.send_event_sync("go", "event", "went")
    deployment.wait_for_ends(waiting, timeout=20)
    assert ax.get_result_sync(waiting[2]) == "went"
    assert deployment.ledger("poison") == {"bad": 3}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_stop_hands_waiting_pipelines_back_at_once(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1, worker_concurrency=1, graceful_shutdown_timeout=60)
    task = ask("FanOut", "p")
    worker = work(deployment)
    deployment.wait_for(lambda: deployment.ledger("begin-one")["p"])
    ask("child", "long", seconds=3)
    deployment.wait_for(lambda: len(deployment.detail(task).children) == 5)
    started = time.monotonic()
    assert deployment.stop(worker) == 0
    assert time.monotonic() - started < patient(20)
    work(deployment)
    deployment.wait_for_ends([task], timeout=30)
    assert deployment.status(task) == "complete"
    assert deployment.endings([task]) == [["complete"]]


@pytest.mark.thorough
@everywhere
def test_sleeps_and_waits_survive_restarts(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1, worker_concurrency=1)
    worker = work(deployment)
    sleeper, waiter = ask("sleeper", "s", seconds=9), ask("waiter", "w")
    for task in (sleeper, waiter):
        deployment.wait_for(
            lambda task=task: deployment.detail(task).logs[-1].message.startswith(("Sleep", "Wait"))
        )
    # Neither holds the only slot.
    deployment.wait_for_status(ask("child", "other"), "complete")
    worker.send_signal(signal.SIGKILL)
    deployment.wait_for(lambda: not deployment.processes())
    assert ax.send_event_sync("go", "w", {"by": "Ann"}) == 1
    work(deployment)
    deployment.wait_for_ends([sleeper, waiter], timeout=30)
    assert ax.get_result_sync(sleeper) == "awake"
    assert ax.get_result_sync(waiter) == {"by": "Ann"}
    slept = deployment.detail(sleeper)
    assert slept.finished_at is not None and (slept.finished_at - slept.created_at).total_seconds() >= 9


@pytest.mark.thorough
@on_targets("valkey+postgres")
def test_an_event_that_redis_was_not_told_of_wakes_its_task(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1)
    work(deployment)
    task = ask("waiter", "w")
    deployment.wait_for(lambda: deployment.detail(task).logs[-1].message.startswith("Waiting for event"))
    assert deployment.broker is not None
    deployment.broker.stop()
    assert ax.send_event_sync("go", "w", 1) == 1
    deployment.broker.start()
    deployment.wait_for_ends([task], timeout=30)
    assert ax.get_result_sync(task) == 1


@pytest.mark.thorough
@everywhere
def test_a_tracker_counts_right_over_crashes_and_fires_once(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, max_crashes=50)
    for number in range(0, 12, 3):
        deployment.arm(f"counted-{number}")
    tracker = ax.Tracker("faults", "k")
    tracker.incr(12)
    tracker.on_complete("aggregate", {"key": "k"})
    tasks = [ask("counted", "k", number=number) for number in range(12)]
    work(deployment)
    deployment.wait_for_ends(tasks, timeout=40)
    deployment.wait_for(lambda: deployment.ledger("aggregate")["k"])
    assert tracker.count == 0
    time.sleep(1)
    assert deployment.ledger("aggregate") == {"k": 1}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_canceling_a_pipeline_stops_its_running_children(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1, worker_concurrency=1)
    work(deployment)
    task = ask("Patient", "p")
    deployment.wait_for(lambda: deployment.ledger("child")["p-slow"])
    assert ax.cancel_sync(task)
    detail = deployment.wait_for_status(task, "canceled")
    assert [child.status for child in detail.children] == ["canceled"]
    # The only slot is free long before the child would have ended.
    deployment.wait_for_status(ask("child", "other"), "complete")


@pytest.mark.thorough
@pytest.mark.timeout(120 + PIPELINES)
@everywhere
def test_pipelines_under_random_kills(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=10, max_crashes=100)
    chance = random.Random(4)
    tasks = [ask("Plain", f"p{number}") for number in range(PIPELINES)]
    work(deployment)
    killed: set[int] = set()
    deadline = time.monotonic() + 10 + PIPELINES / 10
    while any(deployment.status(task) != "complete" for task in tasks[-5:]) and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.1, 0.5))
        workers = deployment.workers()
        if workers:
            victim = chance.choice(workers)
            try:
                victim.kill()
                killed.add(victim.pid)
            except psutil.NoSuchProcess:
                continue
    deployment.wait_for_ends(tasks, timeout=100 + PIPELINES / 2)
    assert {deployment.status(task) for task in tasks} == {"complete"}
    assert deployment.endings(tasks) == [["complete"]] * len(tasks)
    assert killed
    processes: dict[tuple[str, str], list[int]] = {}
    for line in deployment.ledger_file.read_text().splitlines():
        step, key, process, _ = line.split()
        processes.setdefault((step, key), []).append(int(process))
    assert len(processes) == 4 * PIPELINES
    # A step is repeated only if its process was killed between its last line and its record.
    assert all(set(before) <= killed for *before, _ in processes.values())
    print(
        f"{PIPELINES} pipelines, {len(killed)} kills, {sum(map(len, processes.values()))} steps for {4 * PIPELINES}"
    )
