"""Tasks that kill their process."""

from __future__ import annotations

import pytest

import agentexec as ax
from tests.deployment import Deploy, on


@on("embedded", "valkey+postgres")
def test_a_poison_task_ends_in_error_and_its_ten_neighbours_complete(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=11)
    poison = deployment.enqueue("poison", "poison", seconds=0.2)
    neighbours = [deployment.enqueue("work", f"neighbour-{number}", seconds=0.4) for number in range(10)]
    deployment.start()
    with pytest.raises(ax.TaskFailedError, match=r"SIGSEGV.*3rd time") as failure:
        ax.get_result_sync(poison, timeout=20)
    assert failure.value.attempts == 3
    assert deployment.ledger("start")["poison"] == 3
    deployment.wait_for_ends(neighbours, timeout=20)
    assert deployment.endings([poison, *neighbours]) == [["error"], *[["complete"]] * 10]
    assert set(deployment.ledger("end").values()) == {1}


@on("embedded")
def test_a_task_may_be_allowed_one_death_only(deploy: Deploy) -> None:
    deployment = deploy(max_crashes=1)
    poison = deployment.enqueue("poison", "poison")
    deployment.start()
    with pytest.raises(ax.TaskFailedError, match=r"SIGSEGV.*1st time"):
        ax.get_result_sync(poison, timeout=20)
    after = deployment.enqueue("work", "after")
    assert ax.get_result_sync(after, timeout=20) == "after"
    assert deployment.ledger("start") == {"poison": 1, "after": 1}
