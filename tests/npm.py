"""Packages of npm for tests: installed as a lock file says, into `.dev`, on first use."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from tests.waiting import patient

DEV = Path(__file__).parents[1] / ".dev"


def install(folder: Path) -> Path:
    """Install the packages of a folder's lock file, one process at a time; return the folder that has them."""
    home = DEV / folder.name
    home.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = (folder / "package-lock.json").read_text()
        stamp = home / "installed"
        if not stamp.exists() or stamp.read_text() != wanted:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, home / name)
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(
                ["npm", "ci", *quiet], cwd=home, check=True, capture_output=True, timeout=patient(300)
            )
            stamp.write_text(wanted)
    return home
