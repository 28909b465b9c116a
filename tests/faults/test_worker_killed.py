"""kill -9 of a worker process, at every moment of a task's life."""

from __future__ import annotations

import pytest

import agentexec as ax
from tests.deployment import Deploy, failing_backend_env, on_targets
from tests.waiting import patient


@on_targets("embedded", "postgres", "valkey+sqlite", "valkey+postgres")
def test_tasks_of_a_killed_worker_run_again_and_end_once(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=2)
    deployment.start()
    tasks = {key: deployment.enqueue("slow_once", key, seconds=1) for key in "abcd"}
    deployment.wait_for_start(*tasks)
    victim = deployment.process_of("a")
    hit = {key for key in tasks if deployment.process_of(key) == victim}
    victim.kill()
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 4
    assert deployment.ledger("start") == {key: 2 if key in hit else 1 for key in tasks}
    assert deployment.ledger("end") == dict.fromkeys(tasks, 1)
    detail = deployment.detail(tasks["a"])
    assert detail.attempt == 2
    assert any("killed by SIGKILL" in line.message for line in detail.logs), "the log says why it ran twice"


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_tasks_claimed_by_a_worker_killed_before_it_started_them_run_once(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start(**failing_backend_env())
    deployment.arm("after-claim")
    tasks = {key: deployment.enqueue("work", key) for key in "abc"}
    deployment.wait_for_ends(tasks.values())
    assert deployment.fault_fired("after-claim")
    assert deployment.endings(tasks.values()) == [["complete"]] * 3
    assert deployment.ledger("start") == dict.fromkeys(tasks, 1)
    if ax.CONF.redis_url is not None:  # on SQLite alone the claim is the start, and counts as an attempt
        assert [deployment.detail(task).attempt for task in tasks.values()] == [1, 1, 1]


@pytest.mark.thorough
@on_targets("valkey+sqlite", "valkey+postgres")
def test_a_worker_killed_between_result_and_acknowledgement_has_its_task_acknowledged_only(
    deploy: Deploy,
) -> None:
    deployment = deploy()
    deployment.start(**failing_backend_env())
    deployment.arm("before-finish_and_notify")
    task = deployment.enqueue("work", "a", value=42)
    assert ax.get_result_sync(task, timeout=patient(10)) == 42
    deployment.wait_for(
        lambda: deployment.fault_fired("before-finish_and_notify") and deployment.depth() == 0
    )
    assert deployment.ledger("start") == {"a": 1}
    assert deployment.endings([task]) == [["complete"]]


@on_targets("embedded")
def test_a_worker_killed_within_the_transaction_that_ends_its_task_leaves_no_half_an_end(
    deploy: Deploy,
) -> None:
    deployment = deploy()
    deployment.start(**failing_backend_env())
    deployment.arm("before-finish")
    task = deployment.enqueue("work", "a", value=42)
    assert ax.get_result_sync(task, timeout=patient(10)) == 42
    assert deployment.fault_fired("before-finish")
    assert deployment.ledger("start") == {"a": 2}
    assert deployment.endings([task]) == [["complete"]]


@pytest.mark.thorough
@on_targets("embedded")
def test_a_result_arrives_although_its_worker_was_killed_before_the_notification(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start(**failing_backend_env())
    deployment.arm("before-notify_done")
    task = deployment.enqueue("work", "a", value=42)
    assert ax.get_result_sync(task, timeout=patient(10)) == 42
    deployment.wait_for(lambda: deployment.fault_fired("before-notify_done"))
    assert deployment.ledger("start") == {"a": 1}
