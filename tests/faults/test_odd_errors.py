"""Code of users that raises what nobody expects, or ends the event loop: one task fails, and no other notices."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.deployment import Deploy, on_one_target
from tests.faults.worker_module import ODD_ERRORS
from tests.waiting import patient

PLACES = ("handler", "branch", "thread", "step", "plain step")


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_odd_errors_fail_their_own_tasks_after_their_retries_and_the_worker_goes_on(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(worker_concurrency=50)
    supervisor = deployment.start()
    beside = deployment.enqueue("speaks", "beside", gate=str(tmp_path / "gate"))
    deployment.wait_for_start("beside")
    [worker] = deployment.workers()
    odd = {
        f"{kind} in {place}": deployment.enqueue("fails", f"{kind}-{place}", value=f"{kind} in {place}")
        for kind in ODD_ERRORS
        for place in PLACES
    }
    odd |= {kind: deployment.enqueue("fails_in_thread", kind, value=kind) for kind in ODD_ERRORS}
    stops = deployment.enqueue("stops_loop", "stops")
    deployment.wait_for_ends([*odd.values(), stops], timeout=40)
    for name, task in odd.items():
        detail = deployment.detail(task)
        assert (detail.status, detail.attempt) == ("error", 2), name
        expected = type(ODD_ERRORS[name.split(" in ")[0]]()).__name__
        assert expected in str(detail.error).splitlines()[0], name
    assert "cannot stop the event loop" in str(deployment.detail(stops).error)
    assert deployment.status(beside) == "running"
    (tmp_path / "gate").touch()
    deployment.wait_for_ends([beside])
    assert deployment.detail(beside).attempt == 1
    assert deployment.workers() == [worker]
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(patient(15)) == 0, "a drain does not wait for slots that are never freed"


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_tasks_of_an_event_loop_that_ends_go_back_uncounted(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    tasks = [deployment.enqueue("work", f"beside-{number}", seconds=2) for number in range(3)]
    tasks.append(deployment.enqueue("sync_work", "thread", seconds=2))
    deployment.wait_for_start("beside-0", "beside-1", "beside-2", "thread")
    tasks.append(deployment.enqueue("ends_loop", "culprit"))
    deployment.wait_for_ends(tasks, timeout=30)
    for task in tasks:
        detail = deployment.detail(task)
        assert (detail.status, detail.attempt) == ("complete", 1)
    assert set(deployment.ledger("start").values()) == {2}
    assert not any("crashed" in line.message for task in tasks for line in deployment.detail(task).logs)
    assert "The event loop has ended; its tasks go back to the queue." in deployment.log
