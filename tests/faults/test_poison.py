"""Tasks that kill their process."""

from __future__ import annotations

import json
import re

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_one_target, on_targets, run_in_process
from tests.waiting import patient


@on_targets("embedded", "valkey+postgres")
def test_a_poison_task_ends_in_error_and_its_ten_neighbours_complete(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=11)
    poison = deployment.enqueue("poison", "poison", seconds=0.2)
    neighbours = [deployment.enqueue("work", f"neighbour-{number}", seconds=0.4) for number in range(10)]
    deployment.start()
    with pytest.raises(ax.TaskFailedError, match=r"SIGSEGV.*3rd time") as failure:
        ax.get_result_sync(poison, timeout=patient(20))
    assert failure.value.attempts == 3
    assert deployment.ledger("start")["poison"] == 3
    deployment.wait_for_ends(neighbours, timeout=20)
    assert deployment.endings([poison, *neighbours]) == [["error"], *[["complete"]] * 10]
    detail = deployment.detail(poison)
    assert [death.signal for death in detail.deaths] == ["SIGSEGV"] * 3
    assert [death.at for death in detail.deaths] == [
        line.created_at for line in detail.logs if "The worker process" in line.message
    ]
    _, shown, _ = run_in_process(deployment, "show", str(poison.agent_id))
    assert re.findall(
        r"^death: +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.*, its worker was killed by SIGSEGV$", shown, re.MULTILINE
    )
    _, as_json, _ = run_in_process(deployment, "show", str(poison.agent_id), "--json")
    assert [death["signal"] for death in json.loads(as_json)["deaths"]] == ["SIGSEGV"] * 3
    assert set(deployment.ledger("end").values()) == {1}
    failure_line = f"Task poison {poison.agent_id} failed: The worker process was killed by SIGSEGV"
    assert deployment.log.count(failure_line) == 1


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_several_poison_tasks_take_no_other_task_with_them(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=8, lease_seconds=10)
    deployment.start()
    poisons, others = [], []
    for number in range(2):
        poisons.append(deployment.enqueue("poison", f"poison-{number}", seconds=0.3))
        others += [deployment.enqueue("work", f"work-{number}-{n}", seconds=0.6) for n in range(6)]
    deployment.wait_for_ends([*poisons, *others], timeout=90)
    assert deployment.endings(others) == [["complete"]] * 12
    assert deployment.endings(poisons) == [["error"]] * 2


@pytest.mark.thorough
@on_targets("embedded")
def test_a_task_may_be_allowed_a_single_crash(deploy: Deploy) -> None:
    deployment = deploy(max_crashes=1)
    poison = deployment.enqueue("poison", "poison")
    deployment.start()
    with pytest.raises(ax.TaskFailedError, match=r"SIGSEGV.*1st time"):
        ax.get_result_sync(poison, timeout=patient(20))
    after = deployment.enqueue("work", "after")
    assert ax.get_result_sync(after, timeout=patient(20)) == "after"
    assert deployment.ledger("start") == {"poison": 1, "after": 1}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
def test_a_task_that_gets_further_before_each_crash_completes_however_often_it_is_killed(
    deploy: Deploy,
) -> None:
    deployment = deploy(worker_concurrency=2)
    deployment.start()
    task = deployment.enqueue("dies", "task", value="ss-s")
    deployment.wait_for_ends([task], timeout=30)
    assert ax.get_result_sync(task, timeout=patient(10)) == "got to the end"
    assert deployment.ledger("start") == {"task": 5}
    assert deployment.ledger("step") == {f"task-{number}": 1 for number in range(3)}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres")
@pytest.mark.parametrize(
    ("deaths", "reason"),
    [
        ("s--", r"while it ran this task, for the 3rd time; it is not tried again"),
        ("rrr", r"while it ran this task, for the 3rd time; it is not tried again"),
        ("-s--", r"for the 3rd time since its last recorded step \(4 times in all\)"),
    ],
    ids=["after one step", "a step that raises is not progress", "counted from the last step on"],
)
def test_a_task_that_makes_no_progress_ends_at_its_third_crash(
    deploy: Deploy, deaths: str, reason: str
) -> None:
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("dies", "task", value=deaths + "----")
    with pytest.raises(ax.TaskFailedError, match=f"SIGKILL.*{reason}"):
        ax.get_result_sync(task, timeout=patient(20))
    assert deployment.ledger("start") == {"task": len(deaths)}
    assert deployment.ledger("step") == ({"task-0": 1} if "s" in deaths else {})
