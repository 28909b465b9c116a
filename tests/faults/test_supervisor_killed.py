"""kill -9 of the processes above and beside the workers: supervisor, template, maintenance, the whole host."""

from __future__ import annotations

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import WorkerProcess
from agentexec.db.transactions import writing
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, all_exited, on_targets


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_a_killed_supervisor_leaves_no_process_behind_and_another_runs_its_tasks(deploy: Deploy) -> None:
    deployment = deploy()
    killed = deployment.start()
    tasks = {key: deployment.enqueue("slow_once", key, seconds=60) for key in "abc"}
    deployment.wait_for_start(*tasks)
    family = deployment.processes()
    other = deployment.start()
    killed.kill()
    killed.wait()
    assert all_exited(family, timeout=5)
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 3
    assert deployment.ledger("start") == dict.fromkeys(tasks, 2)
    assert deployment.stop(other) == 0


@pytest.mark.thorough
@on_targets("embedded", "valkey+sqlite")
def test_tasks_of_a_host_that_lost_its_power_run_on_another(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    tasks = {key: deployment.enqueue("slow_once", key, seconds=60) for key in "abc"}
    deployment.wait_for_start(*tasks)
    family = deployment.processes()
    deployment.start()
    for process in family:
        process.kill()
    assert all_exited(family)
    with writing(RUNTIME.engine) as connection:  # people read the table of workers; no task depends on it
        connection.execute(delete(WorkerProcess))
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 3
    assert deployment.ledger("start") == dict.fromkeys(tasks, 2)


@pytest.mark.thorough
@on_targets("embedded")
def test_a_killed_template_is_replaced_with_all_that_came_from_it(deploy: Deploy) -> None:
    deployment = deploy()
    supervisor = deployment.start()
    tasks = {key: deployment.enqueue("slow_once", key, seconds=60) for key in "abc"}
    deployment.wait_for_start(*tasks)
    family = deployment.template().children()
    deployment.template().kill()
    assert all_exited(family)
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 3
    assert deployment.ledger("start") == dict.fromkeys(tasks, 2)
    assert deployment.stop(supervisor) == 0
    assert deployment.processes() == []


@pytest.mark.thorough
@on_targets("valkey+postgres")
def test_a_killed_maintenance_process_is_replaced_and_its_duties_are_done_again(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    maintenance, [worker] = deployment.maintenance(), deployment.wait_for(deployment.workers)
    task = deployment.enqueue("slow_once", "a", seconds=60)
    deployment.wait_for_start("a")
    maintenance.kill()
    worker.kill()  # the next maintenance process is told of this crash
    deployment.wait_for_ends([task])
    assert deployment.endings([task]) == [["complete"]]
    assert deployment.ledger("start") == {"a": 2}
    lost = deployment.produce("work", "lost", kill_at="before-push")
    assert lost.returncode == -9
    deployment.wait_for_start("lost")  # found by the new reconciler, though its predecessor never resigned


@on_targets("embedded", "valkey+postgres", "postgres", alternates=False)
def test_a_host_killed_whole_and_restarted_goes_on_with_its_tasks_at_once(deploy: Deploy) -> None:
    deployment = deploy(lease_seconds=600)
    deployment.start()
    tasks = {key: deployment.enqueue("slow_once", key, seconds=600) for key in "abc"}
    deployment.wait_for_start(*tasks)
    for process in (family := deployment.processes()):
        process.kill()
    assert all_exited(family)
    restarted = deployment.start()
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 3
    lines = [line.message for line in deployment.detail(tasks["a"]).logs]
    assert any("died together with its supervisor" in line for line in lines)
    assert deployment.stop(restarted) == 0


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres", "postgres", alternates=False)
def test_a_silent_host_is_noticed_by_another_long_before_its_leases_expire(deploy: Deploy) -> None:
    deployment = deploy(lease_seconds=600, host_timeout=3)
    deployment.start()
    tasks = {key: deployment.enqueue("slow_once", key, seconds=600) for key in "abc"}
    deployment.wait_for_start(*tasks)
    family = deployment.processes()
    deployment.start()
    for process in family:  # a frozen process is still there, as on a host that is out of reach
        process.suspend()
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 3
    lines = [line.message for line in deployment.detail(tasks["a"]).logs]
    assert any("has not answered for 3 s, nor its host" in line for line in lines)
    for process in family:
        process.resume()
    deployment.stop(deployment.supervisors[0])
    assert deployment.endings(tasks.values()) == [["complete"]] * 3, "the epochs refuse what it wrote"


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres", "postgres", alternates=False)
def test_each_tick_runs_once_while_the_hosts_that_tick_are_killed(deploy: Deploy) -> None:
    deployment = deploy()
    hosts = [deployment.start(SCHEDULE="1") for _ in range(3)]
    for host in hosts[:2]:
        seen = deployment.ledger("start")["tick"]
        deployment.wait_for(lambda seen=seen: deployment.ledger("start")["tick"] > seen + 1)
        host.kill()
    seen = deployment.ledger("start")["tick"]
    deployment.wait_for(lambda: deployment.ledger("start")["tick"] > seen + 1)
    assert deployment.stop(hosts[2]) == 0
    with Session(RUNTIME.engine) as db:
        found = ax.activity.list(db, page_size=1000, task_name="tick").items
    ticks = [deployment.detail(task.agent_id).logs[0].message for task in found]
    assert all(message.startswith("Scheduled by tick") for message in ticks)
    assert len(set(ticks)) == len(ticks), "each tick enqueues one task"
