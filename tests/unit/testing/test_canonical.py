"""Files of recorded runs have one form, so that an update in version control shows what has changed and nothing else."""

from __future__ import annotations

from pathlib import Path

import agentexec as ax
from examples.replay.worker import pool
from tests.deployment import REPOSITORY

RUN = REPOSITORY / "examples/replay/runs/broken-lamp.json"


def test_an_update_that_changes_nothing_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    copy = tmp_path / "run.json"
    copy.write_bytes(RUN.read_bytes())
    ax.testing.replay(copy, pool, update=True)
    assert copy.read_bytes() == RUN.read_bytes()
