"""The sandbox of the crash matrix: an agent that works on files, and what is left of its workspace."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any, Literal

from agents import RunConfig, Tool, function_tool
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.capabilities import Capability
from agents.sandbox.entries import File
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.snapshot import LocalSnapshotSpec

import agentexec as ax
from agentexec.runners.sandbox_folders import sandbox_home
from agentexec.runtime import RUNTIME
from agentexec.worker.sandbox_sweep import SandboxSweep

COMMANDS = (
    "printf 'one\\n' > out.txt; printf 'changed\\n' > notes.txt; ln -sf out.txt link",
    "mkdir -p deep; printf 'two\\n' > deep/two.txt; chmod 600 out.txt",
    "cat out.txt notes.txt link; find . -type f | sort",
)
"""Commands that may run twice."""


def sandbox_agent(world: Any, model: Any) -> SandboxAgent[Any]:
    """Return an agent whose tool runs commands in its sandbox, and notes them in the world's ledger."""

    class Commands(Capability):
        type: Literal["commands"] = "commands"

        def tools(self) -> list[Tool]:
            session = self.session
            assert session is not None

            @ax.tool_policy("idempotent")
            @function_tool
            async def run(topic: str) -> str:
                world.write(tool=topic, key=ax.idempotency_key())
                found = await session.exec("sh", "-c", COMMANDS[int(topic[1:]) - 1], shell=False)
                return found.stdout.decode()

            return [run]

    manifest = Manifest(entries={"notes.txt": File(content=b"hello\n")})
    return SandboxAgent("Coder", model=model, capabilities=[Commands()], default_manifest=manifest)


def sandbox_config(folder: Path) -> RunConfig:
    """Return the settings of a run whose workspace and snapshots are in a folder."""
    client = UnixLocalSandboxClient()
    snapshot = LocalSnapshotSpec(base_path=folder / "snapshots")
    return RunConfig(sandbox=SandboxRunConfig(client=client, snapshot=snapshot), tracing_disabled=True)


def use_folder(folder: Path) -> None:
    """Let the workspaces of this process be in a folder."""
    tempfile.tempdir = str(folder)


def workspace_left(folder: Path) -> dict[str, Any]:
    """Sweep as the host does when the task has ended; return the last snapshot's content and what else is there."""
    SandboxSweep(RUNTIME.engine).run()
    files: dict[str, Any] = {}
    snapshots = sorted((folder / "snapshots").glob("*"))
    for snapshot in snapshots:
        with tarfile.open(snapshot) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                files[member.name] = [
                    oct(member.mode),
                    member.linkname,
                    content.read().decode() if content else None,
                ]
    left = [entry.name for entry in sandbox_home().iterdir()] if sandbox_home().exists() else []
    return {"snapshots": len(snapshots), "files": files, "left": left}
