"""Stops of a worker: orderly ones and forced ones."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from agentexec.db.transactions import writing
from agentexec.runtime import RUNTIME
from agentexec.schema.tables import version_table
from tests.deployment import MODULE, Deploy, all_exited, on_one_target, on_targets
from tests.waiting import patient


@on_targets("embedded", "valkey+sqlite")
def test_sigterm_lets_running_tasks_finish_and_leaves_the_others_to_the_next_worker(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=1)
    deployment.start()
    running = deployment.enqueue("work", "running", seconds=1)
    deployment.wait_for_start("running")
    queued = deployment.enqueue("work", "queued")
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)
    assert [deployment.status(task) for task in (running, queued)] == ["complete", "queued"]
    assert deployment.ledger("start") == {"running": 1}
    deployment.start()
    deployment.wait_for_ends([queued])
    assert deployment.ledger("start") == {"running": 1, "queued": 1}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_a_draining_worker_keeps_its_tasks_until_the_last_one_has_ended(deploy: Deploy) -> None:
    deployment = deploy(lease_seconds=1)
    supervisor = deployment.start()
    tasks = [deployment.enqueue(name, name, seconds=2.5) for name in ("work", "sync_work")]
    deployment.wait_for_start("work", "sync_work")
    supervisor.send_signal(signal.SIGTERM)
    deployment.start()  # it would take them if their leases were not renewed
    assert supervisor.wait(patient(20)) == 0
    assert deployment.endings(tasks) == [["complete"]] * 2
    assert deployment.ledger("start") == {"work": 1, "sync_work": 1}


@pytest.mark.thorough
@on_targets("embedded")
def test_a_worker_that_meets_a_newer_schema_in_its_work_finishes_its_tasks_and_says_why(
    deploy: Deploy,
) -> None:
    deployment = deploy()
    supervisor = deployment.start()
    task = deployment.enqueue("work", "running", seconds=2)
    deployment.wait_for_start("running")
    family = deployment.processes()
    with writing(RUNTIME.engine) as connection:
        connection.exec_driver_sql(f"CREATE TABLE {version_table()} (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql(f"INSERT INTO {version_table()} VALUES ('9999')")
    deployment.maintenance().kill()  # its successor checks the schema first
    assert supervisor.wait(patient(20)) == 5
    assert all_exited(family)
    detail = deployment.detail(task)
    assert (detail.status, detail.attempt) == ("complete", 1)
    assert deployment.log.count("newer than this release knows") == 1


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_tasks_that_outlast_the_graceful_timeout_are_handed_back_and_run_elsewhere(deploy: Deploy) -> None:
    deployment = deploy(graceful_shutdown_timeout=0.3)
    deployment.start()
    tasks = {
        "slow": deployment.enqueue("slow_once", "slow", seconds=60),
        "thread": deployment.enqueue("slow_once_in_thread", "thread", seconds=60),
    }
    deployment.wait_for_start(*tasks)
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)
    details = [deployment.detail(task) for task in tasks.values()]
    assert [(detail.status, detail.attempt) for detail in details] == [("queued", 0)] * 2, (
        "the attempt is not counted: a deployment is nobody's fault"
    )
    deployment.start()
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 2
    assert [deployment.detail(task).attempt for task in tasks.values()] == [1, 1]
    assert deployment.ledger("start") == dict.fromkeys(tasks, 2)


@pytest.mark.thorough
@on_targets("embedded")
def test_a_second_signal_stops_immediately(deploy: Deploy) -> None:
    deployment = deploy(graceful_shutdown_timeout=300)
    supervisor = deployment.start()
    task = deployment.enqueue("slow_once", "a", seconds=60)
    deployment.wait_for_start("a")
    family = deployment.processes()
    supervisor.send_signal(signal.SIGTERM)
    deployment.wait_for(lambda: "Stopping" in deployment.log)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(patient(10)) == 1
    assert all_exited(family)
    assert deployment.detail(task).attempt == 0
    assert deployment.status(task) == "queued"


@pytest.mark.thorough
@on_targets("embedded")
def test_ctrl_c_in_a_terminal_stops_as_sigterm_does(deploy: Deploy) -> None:
    deployment = deploy()
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    supervisor = deployment.spawn(command, session=True)
    tasks = [deployment.enqueue("work", "a", seconds=0.5), deployment.enqueue("sync_work", "b", seconds=0.5)]
    deployment.wait_for_start("a", "b")
    family = deployment.processes()
    os.killpg(supervisor.pid, signal.SIGINT)  # a terminal signals every foreground process
    assert supervisor.wait(patient(10)) == 0
    assert all_exited(family)
    assert deployment.endings(tasks) == [["complete"]] * 2
    assert "Traceback" not in deployment.log


@on_targets("embedded", alternates=False)
def test_a_signal_before_the_workers_are_ready_stops_as_well(deploy: Deploy) -> None:
    deployment = deploy()
    supervisor = deployment.start(ready=False)
    deployment.wait_for(lambda: len(deployment.processes()) > 1)
    family = deployment.processes()
    assert deployment.stop(supervisor, timeout=10) == 0
    assert all_exited(family)
    assert deployment.processes() == []


@pytest.mark.thorough
@on_targets("embedded")
def test_a_signal_reaches_workers_that_are_just_starting(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2)
    deployment.start()
    assert deployment.stop(timeout=10) == 0  # although the graceful timeout is minutes


@pytest.mark.thorough
@on_targets("embedded")
def test_a_handler_that_refuses_to_be_canceled_cannot_hold_a_stop_up(deploy: Deploy) -> None:
    deployment = deploy(graceful_shutdown_timeout=0.1)
    deployment.start()
    task = deployment.enqueue("stubborn", "a", seconds=60)
    deployment.wait_for_start("a")
    family = deployment.processes()
    assert deployment.stop() == 0
    assert all_exited(family)
    assert deployment.ledger("refused")["a"] >= 1
    assert deployment.status(task) == "queued"
