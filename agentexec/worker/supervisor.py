"""The supervisor: starts worker processes, watches them, replaces dead ones, and stops them in order.

It is small on purpose, and imports neither the user's module nor anything that can hang on a database. Signal handlers
only note the signal; one loop acts.
"""

from __future__ import annotations

import logging
import selectors
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from agentexec.config import Settings, unknown_variables
from agentexec.errors import AgentexecError, ModuleLoadError
from agentexec.policy import ended_by_itself, exit_reason
from agentexec.worker.channel import Channel
from agentexec.worker.child_processes import ChildProcess, ChildProcesses
from agentexec.worker.failed_start import from_message
from agentexec.worker.machine import new_process_name, new_run_name
from agentexec.worker.probe import HeartbeatFile
from agentexec.worker.signal_queue import SignalQueue
from agentexec.worker.target import Target
from agentexec.worker.template_handle import TemplateHandle, TemplateStarts

log = logging.getLogger("agentexec.supervisor")

KILL_AFTER = 10.0
"""Seconds beyond the graceful time-out, or after a second signal, until the remaining processes are killed."""

TURN_SECONDS = 1.0
"""Longest time between two turns of the loop."""

TEMPLATE_EXIT_WAIT = 2.0
"""Seconds that the template gets to end, where it runs no exit handlers."""

EXIT_HANDLERS_WAIT = 10.0
"""Seconds that the template gets to end with the exit handlers of the user's module."""


@dataclass
class Supervisor:
    """Runs a pool's processes until stopped; `run` returns an exit code of the documented table.

    Threads: the thread that calls `run` owns the state; `stop` may be called from any thread.
    """

    target: Target
    settings: Settings
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings set in code or by options. They also hold in the processes that load the settings again, and take
    precedence over what the user's module sets."""
    run_atexit: bool = True
    """Let the template run the exit handlers of the user's module."""
    show_traceback: bool = False
    """Have the template print a traceback when the module cannot be loaded."""
    log_failed_start: bool = True
    """Log the reason of a failed start. False where the caller raises it."""

    def __post_init__(self) -> None:
        self.settings = self.settings.model_copy()
        self.stopped_by: int | None = None
        """Signal that stopped this supervisor."""
        self.failure: AgentexecError | None = None
        """Reason of a failed start."""
        self.start_settled = threading.Event()
        """Set once the workers start, or once everything has ended because they cannot."""
        self._run_name = new_run_name()
        self._signals = SignalQueue()
        self._children = ChildProcesses()
        self._template: TemplateHandle | None = None
        self._starts = TemplateStarts(self.target.module)
        self._unsettled: dict[str, str] = {}
        self._loaded = False
        self._ready = False
        self._failed: int | None = None
        self._gave_up: int | None = None
        self._stopping_at: float | None = None
        self._forced = False
        self._heartbeat = HeartbeatFile(self.settings.heartbeat_file, self.settings.num_workers)

    def run(self, *, handle_signals: bool = True) -> int:
        """Start all processes, and work until a signal or `stop`.

        Returns 0 after a clean stop, 1 after a forced one or a crash, or the exit code of a failed start.
        """
        if handle_signals:
            self._signals.install()
        for sentence in unknown_variables():
            log.warning("%s", sentence)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals, selectors.EVENT_READ)
        try:
            self._start_template()
            while not self._done():
                self._wait()
                self._handle_signals()
                self._start_missing()
                self._enforce_deadline()
                self._beat()
            return self._close()
        except Exception as error:
            if not self._ready:
                self.failure = AgentexecError(f"The workers cannot start: {type(error).__name__}: {error}.")
            raise
        finally:
            self._kill_all()
            self._selector.close()
            self._signals.restore()
            self._heartbeat.close()
            self.start_settled.set()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Act as if the signal had arrived; from any thread, or a signal handler."""
        self._signals.put(number)

    # ---- signals -----------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        for number in self._signals.take():
            if self._stopping_at is None and number != signal.SIGQUIT:
                self.stopped_by = number
                self._drain()
            else:
                self._force()

    def _drain(self) -> None:
        self._stopping_at = time.monotonic() + self.settings.graceful_shutdown_timeout + KILL_AFTER
        log.info("Stopping: no more tasks are claimed. A second signal stops immediately.")
        self._children.signal_workers(signal.SIGTERM)

    def _force(self) -> None:
        self.stopped_by = self.stopped_by or signal.SIGQUIT
        if self._stopping_at is None or not self._forced:
            log.warning("Stopping immediately: running tasks are handed back to the queue.")
            self._forced = True
            self._stopping_at = time.monotonic() + KILL_AFTER
            self._children.signal_workers(signal.SIGQUIT)
        else:
            self._stopping_at = time.monotonic()

    def _enforce_deadline(self) -> None:
        if self._stopping_at is None:
            return
        if time.monotonic() < self._stopping_at:
            # Sent again each turn: a process that was just forked may not have had its handlers yet.
            self._children.signal_workers(signal.SIGQUIT if self._forced else signal.SIGTERM)
            return
        for worker in self._children.workers:
            if worker.alive and worker.exit_reason is None:
                log.error("Killing %s: it did not stop in time. Its tasks go back to the queue.", worker.name)
                self._forced = True
                worker.kill("was killed because it did not stop in time")

    # ---- messages ----------------------------------------------------------------------------------------

    def _wait(self, timeout: float = TURN_SECONDS) -> None:
        """Wait for messages and signals, and act on the messages."""
        # Only children that may start end the wait early. Others wait for an event, and would keep this loop spinning.
        now = time.monotonic()
        due = [child.restart_at - now for child in self._children if self._may_start(child)]
        if self._template is None and self._stopping_at is None:
            due.append(self._starts.next_at - now)
        for key, _ in self._selector.select(max(0.0, min([timeout, *due]))):
            if isinstance(key.fileobj, Channel):
                self._listen(key.fileobj)
            else:
                self._signals.clear_wake_up()

    def _listen(self, channel: Channel) -> None:
        messages = channel.read()
        if messages is None:
            self._selector.unregister(channel)
            if self._template is not None and channel is self._template.control:
                # The template is about to end. Nothing else reports that before the next turn.
                self._template.wait(TURN_SECONDS)
            return
        for message in messages:
            try:
                self._act_on(message)
            except (KeyError, TypeError, ValueError):
                channel.warn_once()

    def _act_on(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            self._fail(from_message(message, self.target))
        elif "loaded" in message:
            self._note_loaded(message["settings"], can_fork=message["forks"])
        elif "ready" in message:
            self._note_ready()
        elif "forked" in message:
            self._note_start(message["forked"], message["pid"])
        elif "unforked" in message:
            if child := self._children.with_id(message["unforked"]):
                child.fail_to_start(f"could not be started ({message['error']})", time.monotonic())
                self._note_exit(child, 1)
        elif "exited" in message:
            if child := self._children.with_pid(message["exited"]):
                self._note_exit(child, message["code"])
        elif "settled" in message:
            self._unsettled.pop(message["settled"], None)

    def _fail(self, error: AgentexecError) -> None:
        """Start nothing more, and end: after the running tasks, if there are any."""
        if self._ready or self.log_failed_start:
            log.error("%s", error)
        if not self._ready:
            self._failed, self.failure = error.exit_code, error
            return
        self._gave_up = error.exit_code
        if self._stopping_at is None:
            self._drain()

    def _note_loaded(self, settings: dict[str, Any], *, can_fork: bool) -> None:
        """Adopt the settings that the user's module has set, as this process does not import it."""
        self._loaded = True
        self._starts.note_loaded(time.monotonic())
        for name, value in settings.items():
            setattr(self.settings, name, value)
        self._heartbeat.workers_wanted = self.settings.num_workers
        self._children.set_number_of_workers(self.settings.num_workers)
        if not can_fork:
            log.info(
                "The module has started threads, so each worker loads it by itself (slower, more memory)."
            )

    def _note_ready(self) -> None:
        """Start the workers: the maintenance process has found the database and the state backend in order."""
        if not self._ready:
            log.info(
                "Starting %d worker(s) with %d task(s) each on queue %s.",
                len(self._children.workers),
                self.settings.worker_concurrency,
                self.settings.queue_name,
            )
        self._ready = True
        self.start_settled.set()
        self._report_deaths()

    # ---- processes ---------------------------------------------------------------------------------------

    def _start_template(self) -> None:
        self._starts.note_start(time.monotonic())
        self._template = TemplateHandle(
            self.target, self.overrides, run_atexit=self.run_atexit, show_traceback=self.show_traceback
        )
        for channel in self._template.channels:
            self._selector.register(channel, selectors.EVENT_READ)

    def _start_missing(self) -> None:
        """Start the processes that are missing, and notice a dead template."""
        if self._failed is not None:
            return
        if self._template is None:
            self._start_template_again()
            return
        if self._template.exit_code() is not None:
            self._wait(0.0)  # for its last messages, which may say why it ended
            if self._failed is None:
                self._bury_template(self._template)
            return
        self._starts.warn_if_slow(time.monotonic())
        for child in self._children:
            if self._may_start(child) and time.monotonic() >= child.restart_at:
                self._request_start(self._template, child)

    def _may_start(self, child: ChildProcess) -> bool:
        """Return True if a process is missing and may be started, now or at its `restart_at`."""
        if not self._loaded or child.alive or child.requested:
            return False
        if not child.is_worker:
            return self._gave_up is None
        return self._ready and self._stopping_at is None

    def _request_start(self, template: TemplateHandle, child: ChildProcess) -> None:
        # Only now: the user's module may have set the timeout.
        child.request(new_process_name(self._run_name, self.settings.host_timeout))
        role = "worker" if child.is_worker else "maintenance"
        request = {"role": role, "id": child.id, "name": child.name}
        if self._ready:
            request["again"] = "yes"
        template.control.send({"fork": request})

    def _note_start(self, process_id: str, pid: int) -> None:
        child = self._children.with_id(process_id)
        if child is None:
            return
        if not child.start(pid, time.monotonic()):
            # The template reports its exit too, but by then its pid names no child.
            self._note_exit(child, 1)
        elif self._stopping_at is not None and child.is_worker:
            child.send_signal(signal.SIGTERM)

    def _note_exit(self, child: ChildProcess, code: int) -> None:
        """Report the death of a process, and schedule its replacement, later if it dies too often."""
        if child is self._children.maintenance:
            self._read_last_words()
        reason = child.end() or exit_reason(code)
        if child.is_worker and code != 0:
            self._unsettled[child.id] = reason
            self._report_deaths()
        if self._stopping_at is not None or self._failed is not None:
            return
        delay = child.schedule_restart(time.monotonic())
        log.log(
            logging.INFO if code == 0 else logging.ERROR,
            "%s %s; replacing it%s.",
            child.name,
            reason,
            self._children.wait_until_replaced(child, delay),
        )

    def _read_last_words(self) -> None:
        """Read what the maintenance process said before its end: perhaps that no other one can do better."""
        if self._template is not None and self._template.maintenance in self._selector.get_map():
            self._listen(self._template.maintenance)

    def _report_deaths(self) -> None:
        """Tell the maintenance process which dead workers' tasks it is to recover."""
        for worker_id, reason in self._unsettled.items():
            if self._template is not None:
                self._template.maintenance.send({"dead": worker_id, "reason": reason})

    def _bury_template(self, template: TemplateHandle) -> None:
        """Give up all that came from a dead template, and schedule the next one unless the module itself ended it."""
        code, loaded, was_busy = template.exit_code() or 0, self._loaded, not self._children.workers_are_gone
        reason = exit_reason(code) + ("" if loaded else f" before it had loaded {self.target.module}")
        template.close_alive_pipe()
        for child in self._children:
            if child.alive:
                # The kernel kills it with the template, or this does. Only then can its tasks be given back.
                child.kill(f"died with the template process, which {reason}")
                child.wait()
                self._note_exit(child, -signal.SIGKILL)
            child.requested = False
        for channel in template.channels:
            if channel in self._selector.get_map():
                self._selector.unregister(channel)
        template.close()
        self._template, self._loaded = None, False
        if self._stopping_at is not None:
            if was_busy:
                log.error("The template process %s, and the running tasks died with it.", reason)
                self._failed = 1
        elif not loaded and ended_by_itself(code):
            # Nobody killed it: the module, or a library that it uses, has called os._exit() or crashed.
            self._fail(ModuleLoadError(f"The template process {reason}."))
        else:
            self._starts.note_death(f"The template process {reason}", time.monotonic())

    def _start_template_again(self) -> None:
        if self._stopping_at is not None or time.monotonic() < self._starts.next_at:
            return
        try:
            self._start_template()
        except OSError as error:
            self._starts.note_death(f"The template process cannot be started ({error})", time.monotonic())

    def _beat(self) -> None:
        now, stopping = time.monotonic(), self._stopping_at is not None
        alive = [worker for worker in self._children.workers if worker.alive]
        state = "draining" if stopping else "ready" if self._ready and self._loaded else "starting"
        healthy = stopping or not self._ready or any(worker.lasts(now) for worker in alive)
        self._heartbeat.update(state, len(alive), healthy=healthy)

    # ---- stop --------------------------------------------------------------------------------------------

    def _done(self) -> bool:
        if self._failed is not None:
            return True
        if self._stopping_at is None or not self._children.workers_are_gone:
            return False
        # The tasks of dead workers are given back before the maintenance process ends.
        return (
            not self._unsettled
            or not self._children.maintenance.alive
            or time.monotonic() > self._stopping_at + KILL_AFTER
        )

    def _close(self) -> int:
        # A template that is still loading the module would not listen; it is killed.
        if self._template is not None and self._loaded:
            self._template.maintenance.send({"stop": True})
            self._children.maintenance.wait()
            self._template.control.send({"stop": True})
            self._template.wait(EXIT_HANDLERS_WAIT if self.run_atexit else TEMPLATE_EXIT_WAIT)
        if self._failed is not None:
            return self._failed
        log.info("Stopped.")
        return self._gave_up or int(self._forced)

    def _kill_all(self) -> None:
        """Leave no process behind, whatever has happened."""
        for child in self._children:
            child.kill()
        if self._template is not None:
            self._template.kill()
