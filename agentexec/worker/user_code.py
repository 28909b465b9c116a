"""Tells the user's own code from that of agentexec, the standard library and installed packages."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDERS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(os.__file__).parent))


def is_user_code(file: str) -> bool:
    """Return whether a line of this file explains an error to its author."""
    return Path(file).is_absolute() and "site-packages" not in file and not file.startswith(_FOLDERS)
