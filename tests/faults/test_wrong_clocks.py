"""Hosts whose clocks are wrong by hours."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentexec as ax
from tests.deployment import REPOSITORY, Deploy, on_targets
from tests.waiting import patient

WRONG_CLOCK = Path(__file__).parent / "wrong_clock"


@pytest.mark.thorough
@pytest.mark.parametrize("hours", [-1, 1])
@on_targets("valkey+postgres")
def test_a_leader_whose_clock_is_wrong_rebuilds_an_emptied_redis_and_keeps_what_has_not_expired(
    deploy: Deploy, hours: int
) -> None:
    deployment = deploy(lease_seconds=2, result_ttl=1800)
    path = f"{WRONG_CLOCK}:{REPOSITORY}"
    deployment.start(PYTHONPATH=path, CLOCK_AHEAD=str(hours * 3600))
    first = deployment.enqueue("work", "first")
    deployment.wait_for_ends([first])
    assert "The clock of this host is 3600 s" in deployment.log
    running = deployment.enqueue("slow_once", "running", seconds=6)
    deployment.wait_for_start("running")
    deployment.broker.flush()
    lost = [deployment.enqueue("work", f"lost-{number}") for number in range(3)]
    deployment.broker.flush()
    deployment.wait_for_ends([running, *lost])
    assert deployment.endings([first, running, *lost]) == [["complete"]] * 5
    detail = deployment.detail(first)
    assert detail.finished_at is not None
    assert abs((detail.finished_at - detail.created_at).total_seconds()) < 60, "both hosts write one time"
    assert ax.get_result_sync(first, timeout=patient(5)) == "first"
