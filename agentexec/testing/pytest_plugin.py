"""Plugin for pytest: the fixtures `ax_pool` and `replay_run`, and `--update-runs`.

Enable it in conftest.py: `pytest_plugins = ["agentexec.testing.pytest_plugin"]`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Its names are imported on use: a run of pytest that tests no task must not load SQLAlchemy.
from agentexec import testing

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from agentexec.pool import Pool
    from agentexec.testing.harness import Harness


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-runs`."""
    parser.addoption(
        "--update-runs",
        action="store_true",
        help="accept what replayed runs of agentexec ask for now, and write it into their files",
    )


@pytest.fixture
def ax_pool() -> Iterator[Callable[..., Harness]]:
    """Open harnesses on pools, each until the end of the test.

    The fixture is a function that takes a pool and returns its `Harness`; `engine=` and `background=` are those of
    `ax.testing.harness`.
    """
    with ExitStack() as opened:

        def open_harness(pool: Pool, *, engine: Engine | None = None, background: bool = False) -> Harness:
            return opened.enter_context(testing.harness(pool, engine=engine, background=background))

        yield open_harness


@pytest.fixture
def replay_run(request: pytest.FixtureRequest) -> Any:
    """Replay a file that `agentexec export` has written: `replay_run("run.json", pool)`; relative to the test's folder."""
    return functools.partial(_replay_beside, request.path.parent, request.config.getoption("--update-runs"))


def _replay_beside(folder: Path, update: bool, file: str | Path, pool: Pool) -> Any:
    return testing.replay(folder / file, pool, update=update)
