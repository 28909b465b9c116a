"""Workers that are slow, or stopped for a while, and come back."""

from __future__ import annotations

import agentexec as ax
from tests.deployment import Deploy, on_targets


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
    assert ax.get_result_sync(task, timeout=10) == successor.pid, "the result is the successor's"
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
