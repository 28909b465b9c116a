"""The stop of a supervisor: in order after the first signal, immediately after a second one."""

from __future__ import annotations

import logging
import signal
import time

from agentexec.worker.child_processes import ChildProcesses
from agentexec.worker.host_settings import HostSettings

log = logging.getLogger("agentexec.supervisor")

KILL_AFTER = 10.0
"""Seconds beyond the graceful time-out, or after a second signal, until the remaining processes are killed."""


class Stopping:
    """State of a supervisor's stop: whether it has begun, by which signal, and until when the processes may live.

    Threads: only the supervisor's loop calls it.
    """

    def __init__(self, children: ChildProcesses, settings: HostSettings) -> None:
        self._children = children
        self._settings = settings
        self._kill_at: float | None = None
        self.signal: int | None = None
        """Signal that stopped the supervisor."""
        self.forced = False
        """True once running tasks are handed back, rather than finished."""

    @property
    def begun(self) -> bool:
        """True once no more tasks are claimed."""
        return self._kill_at is not None

    @property
    def overdue(self) -> bool:
        """True long after everything should have ended."""
        return self._kill_at is not None and time.monotonic() > self._kill_at + KILL_AFTER

    def act_on(self, number: int) -> None:
        """Act on a signal."""
        if not self.begun and number != signal.SIGQUIT:
            self.signal = number
            self.drain()
        else:
            self.force()

    def drain(self) -> None:
        """Let the worker processes finish their tasks, and end."""
        self._kill_at = time.monotonic() + self._settings.graceful_shutdown_timeout + KILL_AFTER
        log.info("Stopping: no more tasks are claimed. A second signal stops immediately.")
        self._children.signal_workers(signal.SIGTERM)

    def force(self) -> None:
        """Let the worker processes hand back their tasks, and end; if they do that already, kill them."""
        self.signal = self.signal or signal.SIGQUIT
        if self._kill_at is None or not self.forced:
            log.warning("Stopping immediately: running tasks are handed back to the queue.")
            self.forced = True
            self._kill_at = time.monotonic() + KILL_AFTER
            self._children.signal_workers(signal.SIGQUIT)
        else:
            self._kill_at = time.monotonic()

    def enforce_deadline(self) -> None:
        """Kill the worker processes that have not ended in time."""
        if self._kill_at is None:
            return
        if time.monotonic() < self._kill_at:
            # Sent again each turn: a process that was just forked may not have had its handlers yet.
            self._children.signal_workers(signal.SIGQUIT if self.forced else signal.SIGTERM)
            return
        for worker in self._children.all_workers:
            if worker.alive and worker.exit_reason is None:
                log.error("Killing %s: it did not stop in time. Its tasks go back to the queue.", worker.name)
                self.forced = True
                worker.kill("was killed because it did not stop in time")
