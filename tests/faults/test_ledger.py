"""A short form of `python -m tests.faults.ledger`: agents with effects, their workers killed at random."""

from __future__ import annotations

import pytest

from tests.deployment import Deploy, on_targets
from tests.faults.ledger import SETTINGS, run


@pytest.mark.thorough
@pytest.mark.timeout(180)
@on_targets("embedded", "valkey+postgres")
def test_no_effect_is_repeated_and_no_run_is_lost(deploy: Deploy, request: pytest.FixtureRequest) -> None:
    found = run(deploy(**SETTINGS), target=request.node.name, agents=20, seconds=10, pace=0.8)
    assert found.violations == []
    assert found.kills > 3
    assert found.attempts > found.agents
    assert found.bookings == found.charges == 60
