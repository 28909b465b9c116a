"""Sandbox sweep: what ended tasks left on a host is removed, and nothing else."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runners import sandbox_folders
from agentexec.runtime import RUNTIME
from agentexec.worker.sandbox_sweep import INTERVAL, SandboxSweep
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def host(tables_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


def activity(status: ax.Status) -> UUID:
    agent_id = ax.activity.create("research")
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == agent_id).values(status=status))
    return agent_id


def test_only_workspaces_of_ended_tasks_are_removed() -> None:
    workspaces = {status: sandbox_folders.new_workspace(activity(status)) for status in ax.Status}
    unknown = sandbox_folders.new_workspace(uuid4())
    other = sandbox_folders.sandbox_home() / "notes"
    other.mkdir()
    for workspace in workspaces.values():
        (workspace / "deep").mkdir()
        (workspace / "deep" / "out.txt").write_text("x")
        (workspace / "deep").chmod(0o500)
    SandboxSweep(RUNTIME.engine).run()
    left = {status for status, workspace in workspaces.items() if workspace.exists()}
    assert left == {ax.Status.QUEUED, ax.Status.RUNNING}
    assert unknown.exists(), "it may belong to another deployment"
    assert other.exists()


def test_a_sweep_is_repeated_after_an_interval() -> None:
    workspace = sandbox_folders.new_workspace(activity(ax.Status.ERROR))
    sweep = SandboxSweep(RUNTIME.engine)
    sweep.run_if_due(100.0)
    wait_until(lambda: not workspace.exists())
    workspace.mkdir()
    sweep.run_if_due(100.0 + INTERVAL / 2)
    assert workspace.exists()
    wait_until(lambda: sweep.run_if_due(100.0 + INTERVAL) or not workspace.exists())


def test_a_link_in_a_workspace_is_removed_without_what_it_leads_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    workspace = sandbox_folders.new_workspace(activity(ax.Status.CANCELED))
    (workspace / "link").symlink_to(precious)
    SandboxSweep(RUNTIME.engine).run()
    assert not workspace.exists()
    assert (precious / "file").exists()


def test_workspaces_are_closed_to_other_users_and_a_folder_open_to_them_is_not_used() -> None:
    workspace = sandbox_folders.new_workspace(uuid4())
    home = sandbox_folders.sandbox_home()
    assert stat.S_IMODE(home.stat().st_mode) == stat.S_IMODE(workspace.stat().st_mode) == 0o700
    home.chmod(0o777)
    assert sandbox_folders.tasks_with_sandboxes() == {}
    with pytest.raises(ax.AgentexecError, match="must belong to this user and be closed to all others"):
        sandbox_folders.new_workspace(uuid4())


class Container:
    def __init__(self, daemon: Daemon, label: str, *mounts: dict[str, str]) -> None:
        self.label = label
        self.attrs = {"Mounts": list(mounts)}
        self._daemon = daemon

    def remove(self, *, force: bool) -> None:
        assert force
        self._daemon.present.remove(self)


class Daemon:
    """Stands for the Docker daemon behind `docker.from_env()`."""

    def __init__(self) -> None:
        self.present: list[Container] = []
        self.removed_volumes: list[str] = []
        self.closed = 0
        self.containers = self.volumes = self

    def list(self, *, all: bool, filters: dict[str, str]) -> Any:
        assert all
        return [container for container in self.present if container.label == filters["label"]]

    def get(self, name: str) -> Any:
        class Volume:
            remove = staticmethod(lambda: self.removed_volumes.append(name))

        return Volume

    def close(self) -> None:
        self.closed += 1


def test_containers_of_ended_tasks_are_removed_with_their_volumes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended, running = activity(ax.Status.ERROR), activity(ax.Status.RUNNING)
    for agent_id in (ended, running):
        sandbox_folders.note_containers(agent_id)
    sweep = SandboxSweep(RUNTIME.engine)
    monkeypatch.setitem(sys.modules, "docker", None)
    sweep.run()
    sweep.run()
    assert [record.message for record in caplog.records if "cannot be removed" in record.message] == [
        f"The sandbox {sandbox_folders.sandbox_home() / f'{ended}.docker'} of task {ended}, which has ended, cannot be "
        "removed (import of docker halted; None in sys.modules); remove it by hand."
    ]
    daemon, docker = Daemon(), ModuleType("docker")
    docker.from_env = lambda: daemon  # ty: ignore[unresolved-attribute]
    volume = {"Type": "volume", "Name": "sandbox_12_data"}
    foreign = {"Type": "volume", "Name": "postgres"}
    kept = Container(daemon, f"agentexec.task={running}")
    daemon.present = [Container(daemon, f"agentexec.task={ended}", volume, foreign), kept]
    monkeypatch.setitem(sys.modules, "docker", docker)
    sweep.run()
    assert daemon.present == [kept]
    assert daemon.removed_volumes == ["sandbox_12_data"]
    assert daemon.closed == 1
    assert list(sandbox_folders.tasks_with_sandboxes()) == [running]
