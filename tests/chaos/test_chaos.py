"""A short form of `./dev chaos`: a deployment under random faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.driver import run, show
from tests.chaos.plan import TARGETS, draw_plan

SECONDS = 25.0


@pytest.mark.parametrize("target", TARGETS)
def test_a_seed_draws_one_schedule(target: str) -> None:
    plan = draw_plan(7, 600, target)
    assert plan == draw_plan(7, 600, target) != draw_plan(8, 600, target)
    assert len({action.kind for action in plan}) > 10


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("target", "seed"), [("embedded", 1), ("valkey+postgres", 2)])
def test_after_random_faults_everything_accepted_has_ended_once_and_nothing_is_left(
    tmp_path: Path, target: str, seed: int
) -> None:
    report = run(seed, SECONDS, target, say=show, folder=tmp_path)
    assert not report.findings, str(report)
    assert report.tasks and report.actions
