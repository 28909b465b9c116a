"""How the supervisor starts the template process, and what it holds of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from agentexec.config import to_environment
from agentexec.worker.channel import Channel
from agentexec.worker.target import Target


class Launched(NamedTuple):
    """A template process. `alive`: the end of a pipe whose closing tells every process that the supervisor is gone."""

    template: subprocess.Popen[bytes]
    control: Channel
    to_maintenance: Channel
    alive: int


def launch(
    target: Target, overrides: Mapping[str, Any], *, run_atexit: bool, show_traceback: bool
) -> Launched:
    """Start the template process of a pool; `overrides`: settings that hold there whatever the user's module sets."""
    control, theirs = socket.socketpair()
    to_maintenance, for_maintenance = socket.socketpair()
    alive_read, alive_write = os.pipe()
    args = {
        "target": target.to_dict(),
        "control": theirs.fileno(),
        "alive": alive_read,
        "maintenance": for_maintenance.fileno(),
        "overrides": list(overrides),  # by name: everybody can read a command line
        "run_atexit": run_atexit,
        "show_traceback": show_traceback,
    }
    template = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "agentexec.worker.template", json.dumps(args)],
        pass_fds=[theirs.fileno(), alive_read, for_maintenance.fileno()],
        env={**os.environ, **to_environment(overrides)},
    )
    theirs.close()
    for_maintenance.close()
    os.close(alive_read)
    return Launched(template, Channel(control), Channel(to_maintenance), alive_write)
