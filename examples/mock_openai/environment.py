"""Virtual environment of llmock, made on first use, so that its requirements do not conflict with the project's."""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENT = "llmock==0.2.2"
FOLDER = Path(__file__).parents[2] / ".dev" / "llmock"


def llmock_python() -> str:
    """Return the Python of the environment with llmock."""
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / "installed"
    FOLDER.parent.mkdir(exist_ok=True)
    # Two test sessions may both find the environment missing.
    with FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (python.exists() and stamp.exists() and stamp.read_text() == REQUIREMENT):
            print(f"Installing {REQUIREMENT} into {FOLDER}", file=sys.stderr)
            _install(python)
            stamp.write_text(REQUIREMENT)
    return str(python)


def _install(python: Path) -> None:
    if uv := _uv():
        _run(*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER))
        _run(*uv, "pip", "install", "--quiet", "--python", str(python), REQUIREMENT)
    else:
        _run(sys.executable, "-m", "venv", "--clear", str(FOLDER))
        _run(str(python), "-m", "pip", "install", "--quiet", REQUIREMENT)


def _uv() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    if path := shutil.which(beside) or shutil.which("uv"):
        return [path]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else []


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
