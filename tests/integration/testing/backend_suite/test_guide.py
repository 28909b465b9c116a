"""The backend that the guide builds, in a deployment: its server, a worker and a process that enqueues."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.errors import BackendInvalidError
from agentexec.state.loading import load_backend
from tests.deployment import Deployment
from tests.guides import write_files
from tests.waiting import patient, wait_until

WORKER = """
import agentexec as ax

pool = ax.Pool()


@pool.task("double")
async def double(agent_id, context):
    return context["number"] * 2
"""


@pytest.fixture
def deployment(tmp_path: Path, sqlite_tables: str) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, sqlite_tables, state_backend="myapp.state.queue_server")
    yield deployment
    deployment.close()


@pytest.mark.thorough
def test_workers_and_enqueuing_processes_share_the_backend_of_the_guide(deployment: Deployment) -> None:
    write_files("guides/custom-backend.md", deployment.folder)
    (deployment.folder / "tasks.py").write_text(WORKER)
    assert len((deployment.folder / "myapp/state/queue_server.py").read_text().splitlines()) < 150
    in_folder = {"cwd": deployment.folder, "env": deployment.environment}
    with subprocess.Popen([sys.executable, "-m", "myapp.state.queue_server"], **in_folder) as server:
        try:
            wait_until((deployment.folder / "queue.sock").exists)
            deployment.spawn([sys.executable, "-m", "agentexec", "worker", "tasks"])
            command = ["enqueue", "double", '{"number": 21}', "--wait"]
            done = subprocess.run(
                [sys.executable, "-m", "agentexec", *command],
                **in_folder,
                capture_output=True,
                text=True,
                timeout=patient(60),
            )
            assert done.stdout.splitlines()[-1:] == ["42"], done.stderr
            deployment.stop()
        finally:
            server.kill()


def test_a_backend_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old_backend.py").write_text(
        "def create(*_): return type('B', (), {'protocol_version': 0})()"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendInvalidError, match="version 0 of the protocol"):
        load_backend("old_backend", Settings(), create_engine("sqlite://"))
