"""Redis away, restarted and emptied, under a deployment at work."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets

OUTAGE = 10.0


@on_targets("valkey+postgres")
def test_redis_emptied_while_tasks_wait_and_run(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=2)
    deployment.start()
    tasks = {key: deployment.enqueue("work", key, seconds=1) for key in "abcdef"}
    deployment.wait_for_start("a", "b")
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(ax.get_result_sync, tasks["f"], 20)
        deployment.broker.flush()
        deployment.wait_for_ends(tasks.values())
        assert waiting.result(6) == "f", "those who wait for results hear of them"
    assert deployment.endings(tasks.values()) == [["complete"]] * 6
    assert deployment.ledger("start") == dict.fromkeys(tasks, 1)
    deployment.wait_for(lambda: deployment.depth() == 0)


@pytest.mark.thorough
@pytest.mark.parametrize("persist", [True, False], ids=["with its data", "without its data"])
@on_targets("valkey+sqlite")
def test_redis_restarted_while_tasks_wait_and_run(deploy: Deploy, persist: bool) -> None:
    deployment = deploy(worker_concurrency=2)
    deployment.start()
    tasks = {key: deployment.enqueue("work", key, seconds=1) for key in "abcdef"}
    deployment.wait_for_start("a", "b")
    deployment.broker.restart(persist=persist)
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 6
    assert deployment.ledger("start") == dict.fromkeys(tasks, 1)
    deployment.wait_for(lambda: deployment.depth() == 0)


@pytest.mark.thorough
@on_targets("valkey+sqlite")
def test_redis_away_for_ten_seconds(deploy: Deploy) -> None:
    """Tasks that run go on, tasks are accepted, and all of them end once when it is back."""
    deployment = deploy(worker_concurrency=2)
    deployment.start()
    tasks = {"short": deployment.enqueue("work", "short", seconds=1)}
    tasks["long"] = deployment.enqueue("work", "long", seconds=OUTAGE + 2)
    deployment.wait_for_start("short", "long")
    tasks["queued"] = deployment.enqueue("work", "queued")
    deployment.broker.kill()
    away = time.monotonic()
    tasks["accepted"] = deployment.enqueue("work", "accepted")
    detail = deployment.wait_for_status(tasks["short"], "complete")
    assert detail.attempt == 1, "its end is recorded while Redis is away"
    deployment.wait_for(lambda: time.monotonic() - away > OUTAGE)
    deployment.broker.start()
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 4
    assert deployment.ledger("start") == dict.fromkeys(tasks, 1)
    deployment.wait_for(lambda: deployment.depth() == 0)
    assert deployment.log.count("cannot be used") < 10, (
        "an outage is told once by each loop, not once per turn"
    )
