"""The installation of agentexec: the command that runs one of its modules, and its release."""

from __future__ import annotations

import sys
from pathlib import Path


def own_module(module: str) -> list[str]:
    """Return the command that runs a module of agentexec in a new interpreter, without the current folder on its path."""
    # Without -P, `python -m` puts the current folder first. If agentexec itself is there, not installed, it has to.
    in_folder = Path(__file__).resolve().parents[2] == Path.cwd().resolve()
    return [sys.executable, *(() if in_folder else ("-P",)), "-m", module]


def installed_release() -> str:
    """Return the release of agentexec that is installed now; empty where it is not installed as a package."""
    # Imported on use: the supervisor is told its release, and stays small without it.
    import importlib.metadata  # noqa: PLC0415

    try:
        return importlib.metadata.version("agentexec")
    except importlib.metadata.PackageNotFoundError:
        return ""
