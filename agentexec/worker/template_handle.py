"""The supervisor's handle on the template process: starts it, talks to it, and ends it; and when the next one starts."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import subprocess
from collections.abc import Mapping

from agentexec.arguments.variables import env_var_name
from agentexec.worker.channel import Channel
from agentexec.worker.child_processes import YOUNG_SECONDS
from agentexec.worker.exits import restart_delay
from agentexec.worker.installation import own_module
from agentexec.worker.target import Target

log = logging.getLogger("agentexec.supervisor")

SLOW_LOAD_SECONDS = 30.0
"""Seconds after which the log says that the user's module is still being loaded."""


class TemplateHandle:
    """A template process, from its start in the constructor to `kill` or `close`.

    Args:
        target: The user's pool, which the template loads.
        board: File descriptor of the scoreboard.
        overrides: Settings that take precedence over what the user's module sets, as the texts of their variables.
        run_atexit: Let the template run the exit handlers of the user's module.
        show_traceback: Have the template print a traceback when the module cannot be loaded.
        reports: File descriptor to which processes report, -1 for none.
        nohup: Ignore SIGHUP in the template and all programs that it starts, as `nohup` has started this process.
    """

    def __init__(
        self,
        target: Target,
        board: int,
        overrides: Mapping[str, str],
        *,
        run_atexit: bool,
        show_traceback: bool,
        reports: int = -1,
        nohup: bool = False,
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
            "board": board,
            "overrides": list(overrides),  # only their names, as everybody can read a command line
            "run_atexit": run_atexit,
            "show_traceback": show_traceback,
            "reports": reports,
            "nohup": nohup,
        }
        self.control = Channel(control)
        """Channel to the template."""
        self.maintenance = Channel(maintenance)
        """Channel to the maintenance process, whichever it is."""
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*own_module("agentexec.worker.template"), json.dumps(args)],
                pass_fds=[
                    its_control.fileno(),
                    alive_read,
                    its_maintenance.fileno(),
                    board,
                    *([reports] if reports >= 0 else []),
                ],
                env={**os.environ, **{env_var_name(name): text for name, text in overrides.items()}},
            )
        except OSError:
            self.close()
            raise
        finally:
            its_control.close()
            its_maintenance.close()
            os.close(alive_read)

    @property
    def channels(self) -> tuple[Channel, Channel]:
        """Both channels, to listen to."""
        return self.control, self.maintenance

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


class TemplateStarts:
    """Starts and deaths of a supervisor's templates: those that die early delay the next start more and more.

    Moments are monotonic seconds, passed in by the caller.
    """

    def __init__(self, module: str) -> None:
        self.next_at = 0.0
        """Moment from which the next template may start."""
        self._module = module
        self._deaths_in_row = 0
        self._loaded_at: float | None = None
        self._slow_at = math.inf

    def note_start(self, now: float) -> None:
        """Note that a template starts to load the module."""
        self._loaded_at, self._slow_at = None, now + SLOW_LOAD_SECONDS

    def note_loaded(self, now: float) -> None:
        """Note that the template has loaded the module."""
        self._loaded_at, self._slow_at = now, math.inf

    def warn_if_slow(self, now: float) -> None:
        """Log, once for each template, that it has not loaded the module yet."""
        if now >= self._slow_at:
            self._slow_at = math.inf
            log.warning(
                "Loading %s takes longer than %.0f s; no task starts here until it is loaded.",
                self._module,
                SLOW_LOAD_SECONDS,
            )

    def note_death(self, event: str, now: float) -> None:
        """Set and log when the next template starts, after an event that is a main clause."""
        lasted = self._loaded_at is not None and now - self._loaded_at >= YOUNG_SECONDS
        self._deaths_in_row = 1 if lasted else self._deaths_in_row + 1
        delay = restart_delay(self._deaths_in_row)
        self.next_at = now + delay
        wait = f"in {delay:.1f} s, as it has died {self._deaths_in_row} times in a row" if delay else "now"
        log.error("%s. Starting it and all other processes again %s.", event, wait)
