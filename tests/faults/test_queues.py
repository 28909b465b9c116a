"""Workers of several queues under faults, and paused queues that stay paused whatever happens."""

from __future__ import annotations

import signal

import pytest

import agentexec as ax
from agentexec.activity.changes.queue_pauses import record_pause
from agentexec.client.enqueue import enqueue_in_transaction
from agentexec.client.new_task import new_task
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment, all_exited, on_targets, run_in_process
from tests.waiting import patient

QUEUES = ("high", "low")


def enqueue(deployment: Deployment, name: str, key: str, queue: str, seconds: float = 0.0) -> ax.Task:
    return ax.enqueue_sync(name, {"key": key, "seconds": seconds}, queue_name=queue)


def in_both(deployment: Deployment, name: str, number: int, seconds: float) -> dict[str, ax.Task]:
    """Enqueue tasks in both queues by turns; their keys begin with the queue's."""
    return {
        f"{queue}-{count}": enqueue(deployment, name, f"{queue}-{count}", queue, seconds)
        for count in range(number)
        for queue in QUEUES
    }


def known(queue: str) -> int:
    depth = RUNTIME.backend.depth(queue)
    return depth.ready + depth.delayed + depth.leased


@pytest.mark.thorough
@on_targets("valkey+postgres", "embedded", "postgres")
def test_nothing_is_lost_of_two_queues(deploy: Deploy) -> None:
    """One worker is killed, then the whole host, then the next one is told to stop with tasks of both queues running."""
    deployment = deploy(num_workers=2, worker_concurrency=4, queues="high,low", graceful_shutdown_timeout=0)
    deployment.start()
    tasks = in_both(deployment, "slow_once", 2, 60)
    deployment.wait_for_start(*tasks)
    victim = deployment.process_of("high-0")
    hit = {key for key in tasks if deployment.process_of(key) == victim}
    victim.kill()
    deployment.wait_for_ends(tasks[key] for key in hit)
    family = deployment.processes()
    for process in family:
        process.kill()
    assert all_exited(family)
    restarted = deployment.start()
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 4
    assert deployment.ledger("start") == dict.fromkeys(tasks, 2)
    deployment.wait_for(lambda: [known(queue) for queue in QUEUES] == [0, 0])
    drained = in_both(deployment, "work", 1, 60)
    deployment.wait_for_start(*drained)
    restarted.send_signal(signal.SIGTERM)
    assert restarted.wait(patient(30)) == 0
    depths = [RUNTIME.backend.depth(queue) for queue in QUEUES]
    assert [(depth.ready, depth.leased) for depth in depths] == [(1, 0)] * 2, "each is back in its own queue"
    assert [deployment.status(task) for task in drained.values()] == ["queued"] * 2


@pytest.mark.thorough
@on_targets("valkey+postgres", "embedded", "postgres")
def test_a_pause_outlives_workers_and_an_emptied_redis(deploy: Deploy) -> None:
    deployment = deploy(queues="high,low")
    deployment.start()
    running = enqueue(deployment, "work", "running", "high", 2)
    deployment.wait_for_start("running")
    code, out, _ = run_in_process(deployment, "queues", "pause", "high", "--reason", "bad deploy")
    assert (code, "1 running task(s) go on" in out) == (0, True)
    deployment.wait_for(lambda: "Queue high is paused" in deployment.log)
    paused = enqueue(deployment, "work", "paused", "high")
    deployment.wait_for_ends([enqueue(deployment, "work", "low-1", "low")])
    if deployment.broker is not None:
        deployment.broker.flush()
        deployment.wait_for(lambda: RUNTIME.backend.depth("high").ready == 1)
    deployment.wait_for_ends([running])
    assert deployment.stop() == 0
    deployment.start()
    deployment.wait_for_ends([enqueue(deployment, "work", "low-2", "low")])
    assert deployment.status(paused) == "queued"
    assert deployment.ledger("start")["paused"] == 0
    _, shown, _ = run_in_process(deployment, "show", str(paused.agent_id))
    assert "Queue high is paused since" in shown and "(bad deploy)" in shown
    assert run_in_process(deployment, "queues", "resume", "high")[1] == "Queue high is resumed.\n"
    deployment.wait_for_ends([paused])


@pytest.mark.thorough
@on_targets("embedded", "valkey+sqlite")
def test_the_only_queue_of_a_worker_is_paused_and_resumed(deploy: Deploy) -> None:
    """The message about the pause was lost, so the worker finds it in the record some seconds later."""
    deployment = deploy()
    deployment.start()
    queue = ax.CONF.queue_name
    assert record_pause(RUNTIME.engine, queue, by="a program", reason=None, now=utc_now())
    deployment.wait_for(lambda: f"Queue {queue} is paused" in deployment.log)
    task = deployment.enqueue("work", "a")
    with pytest.raises(TimeoutError):
        ax.get_result_sync(task, timeout=0.3)
    assert ax.queues.resume_sync(queue)
    assert ax.get_result_sync(task, timeout=patient(3)) == "a"


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres", alternates=False)
def test_tasks_in_queues_of_names_that_are_refused_today_are_drained(deploy: Deploy) -> None:
    deployment = deploy()
    names = ["my queue", "shard:7", "a,b"]
    tasks = [_enqueue_as_earlier_releases_did(name) for name in names]
    code, out, _ = run_in_process(deployment, "queues")
    assert code == 0 and all(name in out for name in names)
    with pytest.raises(ax.UsageError):
        ax.queues.pause_sync("my queue")
    assert not ax.queues.resume_sync("my queue"), "but a pause from before can be ended"
    worker = deployment.start("--burst", "-Q", ",".join(f'"{name}"' for name in names), ready=False)
    deployment.wait_for_ends(tasks)
    assert worker.wait(patient(30)) == 0
    assert deployment.endings(tasks) == [["complete"]] * 3


def _enqueue_as_earlier_releases_did(queue: str) -> ax.Task:
    new = new_task("work", {"key": queue, "seconds": 0})._replace(queue=queue)
    with writing(RUNTIME.engine) as connection:
        push = enqueue_in_transaction(connection, new)
    push()
    return ax.Task(agent_id=new.agent_id, task_name="work", queue_name=queue)
