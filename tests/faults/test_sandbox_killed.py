"""kill -9 of a worker whose agent works in a sandbox."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets
from tests.waiting import patient

MODULE = Path(__file__).parent / "sandbox_module.py"


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_a_killed_workers_agent_finds_its_files_again_and_ended_tasks_leave_no_workspace(
    deploy: Deploy,
) -> None:
    deployment = deploy(max_crashes=2)
    folder = deployment.folder / "temporary"
    folder.mkdir()
    home = folder / f"agentexec-{os.getuid()}"
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    deployment.spawn(command, TMPDIR=str(folder))
    once = deployment.enqueue("build", "once", times=1)
    assert ax.get_result_sync(once, timeout=patient(30)).endswith("Output:\none\n")
    assert deployment.detail(once).attempt == 2
    assert deployment.ledger("die")["once"] == 2
    deployment.wait_for(lambda: list(home.iterdir()) == [])
    # This one kills every worker that runs it. The record ends it, not its handler.
    always = deployment.enqueue("build", "always", times=9)
    deployment.wait_for_status(always, "error")
    deployment.wait_for(lambda: list(home.iterdir()) == [], timeout=30)
