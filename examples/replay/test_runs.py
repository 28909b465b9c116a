"""Every recorded run takes the same steps with the code at hand: nothing is called, and no key is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from worker import pool

RUNS = sorted((Path(__file__).parent / "runs").glob("*.json"))


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_a_recorded_run_goes_the_same_way(replay_run: Any, file: Path) -> None:
    replay_run(file, pool)


def test_a_broken_lamp_is_refunded(replay_run: Any) -> None:
    assert replay_run("runs/broken-lamp.json", pool).result == "Your 49.00 dollars are on their way."
