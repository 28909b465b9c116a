"""The supervisor's handle on the template process: starts it, talks to it, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from agentexec.config import to_environment
from agentexec.worker.channel import Channel
from agentexec.worker.target import Target


class TemplateHandle:
    """A template process, from its start in the constructor to `kill` or `close`.

    Args:
        target: The user's pool, which the template loads.
        overrides: Settings that take precedence over what the user's module sets.
        run_atexit: Let the template run the exit handlers of the user's module.
        show_traceback: Have the template print a traceback when the module cannot be loaded.
    """

    def __init__(
        self, target: Target, overrides: Mapping[str, Any], *, run_atexit: bool, show_traceback: bool
    ) -> None:
        control, its_control = socket.socketpair()
        maintenance, its_maintenance = socket.socketpair()
        # Every process reads from this pipe; when it closes, the supervisor is gone.
        alive_read, alive_write = os.pipe()
        self._alive_write: int | None = alive_write
        args = {
            "target": target.to_dict(),
            "control": its_control.fileno(),
            "alive": alive_read,
            "maintenance": its_maintenance.fileno(),
            "overrides": list(overrides),  # only their names, as everybody can read a command line
            "run_atexit": run_atexit,
            "show_traceback": show_traceback,
        }
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "agentexec.worker.template", json.dumps(args)],
            pass_fds=[its_control.fileno(), alive_read, its_maintenance.fileno()],
            env={**os.environ, **to_environment(overrides)},
        )
        its_control.close()
        its_maintenance.close()
        os.close(alive_read)
        self.control = Channel(control)
        """Channel to the template."""
        self.maintenance = Channel(maintenance)
        """Channel to the maintenance process, whichever it is."""

    def exit_code(self) -> int | None:
        """Return the exit code of a process that has ended, None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the end of the process."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def kill(self) -> None:
        """End the process, and close the connections to it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.close()

    def close_alive_pipe(self) -> None:
        """Tell all processes that they are on their own: those that still live hand their tasks back and end."""
        if self._alive_write is not None:
            os.close(self._alive_write)
            self._alive_write = None

    def close(self) -> None:
        """Close all connections to the process and its children."""
        self.close_alive_pipe()
        self.control.close()
        self.maintenance.close()
