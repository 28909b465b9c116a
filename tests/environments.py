"""Virtual environments of other packages, for comparisons; each is made when it is first needed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[1] / ".dev" / "environments"


def environment_of(name: str, packages: str) -> Path:
    """Return the Python of an environment with these packages, parted by blanks; this one if there are none."""
    if not packages:
        return Path(sys.executable)
    place = ENVIRONMENTS / name
    python = place / "bin" / "python"
    stamp = place / "installed"
    if not stamp.exists() or stamp.read_text() != packages:
        variables = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "1"}
        variables.pop("UV_PYTHON", None)
        uv = str(Path(sys.executable).parent / "uv")
        base = Path(sys.base_prefix) / "bin" / "python3"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", base, place], check=True, env=variables)
        install = [uv, "pip", "install", "-q", "--python", python, *shlex.split(packages)]
        subprocess.run(install, check=True, env=variables)
        stamp.write_text(packages)
    return python
