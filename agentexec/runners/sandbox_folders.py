"""Sandboxes on this host: where the workspaces of tasks are, and the removal of those that a task has left behind.

A workspace is a folder named for its task, in one folder for each user of the host. Containers carry the task's id as
a label, and an empty file in the same folder says that there are some. So the host can find what a killed worker left
behind even if the worker died before it recorded anything.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import stat
import tempfile
import uuid
from pathlib import Path
from typing import Any
from uuid import UUID

from agentexec.errors import AgentexecError

CONTAINER_LABEL = "agentexec.task"
"""Label of a sandbox's container; its value is the task's agent_id."""

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FOLDER = re.compile(rf"({_UUID})-[0-9a-f]{{8}}")
_CONTAINERS = re.compile(rf"({_UUID})\.docker")


def sandbox_home() -> Path:
    """Return the folder of this user's workspaces, which need not exist."""
    return Path(tempfile.gettempdir(), f"agentexec-{os.getuid()}")


def new_workspace(agent_id: UUID) -> Path:
    """Create an empty workspace for a task."""
    folder = _make_home() / f"{agent_id}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    return folder


def note_containers(agent_id: UUID) -> None:
    """Note that a task has containers on this host; to be called before the first one is created."""
    (_make_home() / f"{agent_id}.docker").touch(mode=0o600)


def tasks_with_sandboxes() -> dict[UUID, list[Path]]:
    """Return the tasks that have a workspace or containers on this host, each with its entries in the folder."""
    found: dict[UUID, list[Path]] = {}
    home = sandbox_home()
    if not _is_private(home):
        return found
    for entry in home.iterdir():
        match = _FOLDER.fullmatch(entry.name) or _CONTAINERS.fullmatch(entry.name)
        if match:
            found.setdefault(UUID(match[1]), []).append(entry)
    return found


def remove_sandbox(agent_id: UUID, entry: Path) -> None:
    """Remove a workspace, or the containers that a file notes.

    Raises:
        OSError: A file of the workspace cannot be removed.
        Exception: Docker cannot be reached.
    """
    if _CONTAINERS.fullmatch(entry.name):
        _remove_containers(agent_id)
        entry.unlink(missing_ok=True)
    else:
        try:
            shutil.rmtree(entry)
        except PermissionError:
            _make_writable(entry)
            shutil.rmtree(entry)


def _remove_containers(agent_id: UUID) -> None:
    # Imported here: the package is optional, and only a host that has containers needs it.
    docker: Any = importlib.import_module("docker")
    client = docker.from_env()
    try:
        label = f"{CONTAINER_LABEL}={agent_id}"
        for container in client.containers.list(all=True, filters={"label": label}):
            # The SDK names its volumes so. Other volumes belong to somebody else.
            volumes = [
                mount["Name"]
                for mount in container.attrs.get("Mounts") or []
                if mount.get("Type") == "volume" and str(mount.get("Name", "")).startswith("sandbox_")
            ]
            container.remove(force=True)
            for name in volumes:
                client.volumes.get(name).remove()
    finally:
        client.close()


def _make_writable(folder: Path) -> None:
    """Let the folders of a workspace be emptied: an agent may have made some of them read-only."""
    folder.chmod(0o700)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            _make_writable(entry)


def _make_home() -> Path:
    home = sandbox_home()
    home.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(home):
        raise AgentexecError(
            f"The folder {home} must belong to this user and be closed to all others, because agents work in it; "
            "remove it, or set TMPDIR to another folder."
        )
    return home


def _is_private(home: Path) -> bool:
    """Return True for a folder of this user's own: what others could put there is not to be trusted or removed."""
    try:
        found = home.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
