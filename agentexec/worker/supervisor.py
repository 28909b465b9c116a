"""The supervisor: starts worker processes, watches them, replaces dead ones, and stops them in order.

It is small on purpose: it imports neither the user's module nor anything that can hang on a database, and nothing large. Signal handlers
only note the signal; one loop acts. Its parts: `host_processes.py` has the processes, `stopping.py` the stop.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentexec.errors import AgentexecError, ModuleLoadError
from agentexec.worker.burst import Burst
from agentexec.worker.child_processes import ChildProcesses, Restart
from agentexec.worker.generation import TemplateOptions
from agentexec.worker.host_processes import HostProcesses
from agentexec.worker.host_settings import HostSettings
from agentexec.worker.host_telemetry import HostTelemetry
from agentexec.worker.installation import installed_release
from agentexec.worker.pidfile import Pidfile
from agentexec.worker.probe import HeartbeatFile
from agentexec.worker.sd_notify import ServiceManager
from agentexec.worker.signal_queue import CODE_CHANGED, SignalQueue, Terminal
from agentexec.worker.stopping import Stopping
from agentexec.worker.target import Target

if TYPE_CHECKING:
    from agentexec.config import Settings
    from agentexec.worker.code_watch import CodeWatch

log = logging.getLogger("agentexec.supervisor")

MAX_WORKERS = 512
"""Worker processes of one supervisor at most, as in `num_workers`."""


@dataclass
class Supervisor:
    """Runs a pool's processes until stopped; `run` returns an exit code of the documented table.

    Threads: the thread that calls `run` owns the state; `stop` may be called from any thread.
    """

    target: Target
    given: Settings | HostSettings
    overrides: dict[str, str] = field(default_factory=dict)
    """Settings set in code or by options, as the texts of their variables. They also hold in the processes that load the settings again, and take
    precedence over what the user's module sets."""
    run_atexit: bool = True
    """Let the template run the exit handlers of the user's module."""
    show_traceback: bool = False
    """Have the template print a traceback when the module cannot be loaded."""
    log_failed_start: bool = True
    """Log the reason of a failed start. False where the caller raises it."""
    release: str = field(default_factory=installed_release)
    """Release of agentexec that this process has loaded."""

    def __post_init__(self) -> None:
        self.settings = HostSettings.of(self.given)
        self._pidfile = Pidfile(self.settings.pidfile)
        self.failure: AgentexecError | None = None
        """Reason of a failed start."""
        self.start_settled = threading.Event()
        """Set once the workers start, or once everything has ended because they cannot."""
        self._telemetry = HostTelemetry(self.settings)
        self._signals = SignalQueue()
        self._burst = Burst()
        self._code_watch: CodeWatch | None = None
        self._terminal = Terminal()
        self._children = ChildProcesses()
        self._stopping = Stopping(self._children, self.settings)
        self._processes = HostProcesses(
            TemplateOptions(
                self.target,
                self.overrides,
                self.run_atexit,
                self.show_traceback,
                self._telemetry.descriptor,
            ),
            self.settings,
            self._children,
            self._stopping,
            release=self.release,
            log_failed_start=self.log_failed_start,
            on_loaded=self._note_settings,
            on_ready=self.start_settled.set,
        )
        self._heartbeat = HeartbeatFile(self.settings.heartbeat_file, self.settings.num_workers)

    @property
    def stopped_by(self) -> int | None:
        """Signal that stopped this supervisor."""
        return self._stopping.signal

    @property
    def restarts(self) -> Counter[Restart]:
        """Number of replaced worker processes, by reason."""
        return self._processes.restarts

    def run(self, *, handle_signals: bool = True) -> int:
        """Start all processes, and work until a signal or `stop`.

        Returns 0 after a clean stop, 1 after a forced one or a crash, or the exit code of a failed start.
        """
        if handle_signals:
            self._signals.install()
        # A program that runs workers in its background is the service itself.
        self._telemetry.start(ServiceManager(os.environ) if handle_signals else None)
        self._processes.selector.register(self._signals, selectors.EVENT_READ)
        try:
            if self.settings.reload:
                self._code_watch = self._watch_code()
            self._processes.start_template()
            while not self._processes.done or self._waits_for_change():
                self._turn()
            self.failure = self._processes.failure
            return self._close()
        except Exception as error:
            if not self._processes.ready:
                self.failure = AgentexecError(f"The workers cannot start: {type(error).__name__}: {error}.")
            raise
        finally:
            self._processes.kill_all()
            self._signals.restore()
            self._heartbeat.close()
            self._telemetry.close()
            self._pidfile.close()
            if self._code_watch is not None:
                self._code_watch.close()
            self.start_settled.set()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Act as if the signal had arrived; from any thread, or a signal handler."""
        self._signals.put(number)

    def _turn(self) -> None:
        if self._signals in self._processes.wait():
            self._signals.clear_wake_up()
        for number in self._signals.take():
            self._act_on(number)
        self._processes.turn()
        if self._ends_burst():
            log.info("Nothing is left to do now.")
            self._stopping.drain()
        self._stopping.enforce_deadline()
        self._beat()

    def _act_on(self, number: int) -> None:
        if number == signal.SIGHUP:
            if self._terminal.has_closed():
                self._stopping.act_on(signal.SIGQUIT)
            else:
                self._processes.reload()
        elif number == CODE_CHANGED:
            # In development nobody waits for the old code: its tasks continue in the new one at their last step.
            self._processes.reload(signal.SIGQUIT)
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            self._change_number_of_workers(1 if number == signal.SIGTTIN else -1)
        else:
            self._stopping.act_on(number)

    def _change_number_of_workers(self, change: int) -> None:
        wanted = len(self._children.workers) + change
        if self._stopping.begun or not self._processes.ready or not 1 <= wanted <= MAX_WORKERS:
            log.warning("The number of workers stays at %d.", len(self._children.workers))
            return
        self._children.change_number_of_workers(change)
        self._note_settings()
        log.info("%s a worker: there are %d now.", "Starting" if change > 0 else "Stopping", wanted)

    def _ends_burst(self) -> bool:
        if not self.settings.burst or self._stopping.begun or not self._processes.reconciled:
            return False
        return self._burst.is_over(self._children.all_workers)

    def _waits_for_change(self) -> bool:
        """Wait for a change of code that cannot be loaded, in development. Returns False if nothing is waited for."""
        if self._code_watch is None or not isinstance(self._processes.failure, ModuleLoadError):
            return False
        log.info("Waiting for a change of the code.")
        while True:
            self._processes.wait()
            self._signals.clear_wake_up()
            self._beat()
            for number in self._signals.take():
                if number in (CODE_CHANGED, signal.SIGHUP):
                    self._processes.start_over()
                    return True
                self._stopping.act_on(number)
                return False

    def _watch_code(self) -> CodeWatch:
        # Imported on use: only development needs it.
        from agentexec.worker.code_watch import CodeWatch, code_folders  # noqa: PLC0415

        return CodeWatch(code_folders(self.target), lambda: self._signals.put(CODE_CHANGED))

    def _note_settings(self) -> None:
        self._heartbeat.workers_wanted = len(self._children.workers) or self.settings.num_workers

    def _beat(self) -> None:
        now, stopping = time.monotonic(), self._stopping.begun
        ready = self._processes.ready
        alive = {worker.name for worker in self._children.all_workers if worker.alive}
        state = "draining" if stopping else "ready" if ready and self._processes.loaded else "starting"
        healthy = stopping or not ready or any(worker.lasts(now) for worker in self._children.all_workers)
        self._heartbeat.update(state, len(alive), healthy=healthy)
        self._telemetry.note_turn(state, self._children, self.restarts, lasting=healthy)

    def _close(self) -> int:
        self._processes.end()
        if self._processes.failed is not None:
            return self._processes.failed
        log.info("Stopped.")
        return self._processes.gave_up or int(self._stopping.forced)
