"""Plugin for pytest: the fixture `replay_run`, and `--update-runs`.

Enable it in conftest.py: `pytest_plugins = ["agentexec.testing.pytest_plugin"]`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from agentexec.pool import Pool
from agentexec.testing.run_replay import replay


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-runs`."""
    parser.addoption(
        "--update-runs",
        action="store_true",
        help="accept what replayed runs of agentexec ask for now, and write it into their files",
    )


@pytest.fixture
def replay_run(request: pytest.FixtureRequest) -> Any:
    """Replay a file that `agentexec export` has written: `replay_run("run.json", pool)`; relative to the test's folder."""
    return functools.partial(_replay_beside, request.path.parent, request.config.getoption("--update-runs"))


def _replay_beside(folder: Path, update: bool, file: str | Path, pool: Pool) -> Any:
    return replay(folder / file, pool, update=update)
