"""The processes of a supervisor: starts them, acts on what they say, and replaces those that die."""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentexec.config import Settings
from agentexec.errors import AgentexecError, ModuleLoadError
from agentexec.policy import ended_by_itself, exit_reason
from agentexec.worker.channel import Channel
from agentexec.worker.child_processes import ChildProcess, ChildProcesses
from agentexec.worker.failed_start import from_message
from agentexec.worker.machine import new_process_name, new_run_name
from agentexec.worker.stopping import Stopping
from agentexec.worker.target import Target
from agentexec.worker.template_handle import TemplateHandle, TemplateStarts

log = logging.getLogger("agentexec.supervisor")

TURN_SECONDS = 1.0
"""Longest time between two turns of the supervisor's loop."""

TEMPLATE_EXIT_WAIT = 2.0
"""Seconds that the template gets to end, where it runs no exit handlers."""

EXIT_HANDLERS_WAIT = 10.0
"""Seconds that the template gets to end with the exit handlers of the user's module."""


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """Options of the template process, see `TemplateHandle`."""

    target: Target
    overrides: dict[str, Any] = field(default_factory=dict)
    run_atexit: bool = True
    show_traceback: bool = False
    reports: int = -1


class HostProcesses:
    """The template, the maintenance process and the worker processes of one supervisor.

    Threads: only the supervisor's loop calls it.

    Args:
        options: Options of the template.
        settings: The supervisor's settings, which adopt what the user's module has set.
        children: The list of processes.
        stopping: The supervisor's stop.
        log_failed_start: Log the reason of a failed start. False where the caller raises it.
        on_loaded: Called when the template has loaded the user's module.
        on_ready: Called when the workers start.
    """

    def __init__(
        self,
        options: TemplateOptions,
        settings: Settings,
        children: ChildProcesses,
        stopping: Stopping,
        *,
        log_failed_start: bool,
        on_loaded: Callable[[], object],
        on_ready: Callable[[], object],
    ) -> None:
        self._options = options
        self._settings = settings
        self._children = children
        self._stopping = stopping
        self._log_failed_start = log_failed_start
        self._on_loaded = on_loaded
        self._on_ready = on_ready
        self.selector = selectors.DefaultSelector()
        """Waits for the messages of the processes, and for whatever else is registered."""
        self.loaded = False
        """True while a template has loaded the user's module."""
        self.ready = False
        """True once the maintenance process has found the servers in order."""
        self.failed: int | None = None
        """Exit code, once everything is to end at once."""
        self.gave_up: int | None = None
        """Exit code, once nothing more can start, for after the running tasks."""
        self.failure: AgentexecError | None = None
        """Reason of a failed start."""
        self._run_name = new_run_name()
        self._template: TemplateHandle | None = None
        self._starts = TemplateStarts(options.target.module)
        self._unsettled: dict[str, str] = {}

    # ---- messages ----------------------------------------------------------------------------------------

    def wait(self, timeout: float = TURN_SECONDS) -> list[object]:
        """Wait for messages, act on them, and return the other objects of the selector that are readable."""
        # Only children that may start end the wait early. Others wait for an event, and would keep this loop spinning.
        now = time.monotonic()
        due = [child.restart_at - now for child in self._children if self._may_start(child)]
        if self._template is None and not self._stopping.begun:
            due.append(self._starts.next_at - now)
        others: list[object] = []
        for key, _ in self.selector.select(max(0.0, min([timeout, *due]))):
            if isinstance(key.fileobj, Channel):
                self._listen(key.fileobj)
            else:
                others.append(key.fileobj)
        return others

    def _listen(self, channel: Channel) -> None:
        messages = channel.read()
        if messages is None:
            self.selector.unregister(channel)
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
            self._fail(from_message(message, self._options.target))
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
        if self.ready or self._log_failed_start:
            log.error("%s", error)
        if not self.ready:
            self.failed, self.failure = error.exit_code, error
            return
        self.gave_up = error.exit_code
        if not self._stopping.begun:
            self._stopping.drain()

    def _note_loaded(self, settings: dict[str, Any], *, can_fork: bool) -> None:
        """Adopt the settings that the user's module has set, as this process does not import it."""
        self.loaded = True
        self._starts.note_loaded(time.monotonic())
        for name, value in settings.items():
            setattr(self._settings, name, value)
        self._on_loaded()
        self._children.set_number_of_workers(self._settings.num_workers)
        if not can_fork:
            log.info(
                "The module has started threads, so each worker loads it by itself (slower, more memory)."
            )

    def _note_ready(self) -> None:
        """Start the workers: the maintenance process has found the database and the state backend in order."""
        if not self.ready:
            log.info(
                "Starting %d worker(s) with %d task(s) each on queue %s.",
                len(self._children.workers),
                self._settings.worker_concurrency,
                self._settings.queue_name,
            )
        self.ready = True
        self._on_ready()
        self._report_deaths()

    # ---- processes ---------------------------------------------------------------------------------------

    def start_template(self) -> None:
        """Start a template, which loads the user's module."""
        self._starts.note_start(time.monotonic())
        options = self._options
        self._template = TemplateHandle(
            options.target,
            options.overrides,
            run_atexit=options.run_atexit,
            show_traceback=options.show_traceback,
            reports=options.reports,
        )
        for channel in self._template.channels:
            self.selector.register(channel, selectors.EVENT_READ)

    def start_missing(self) -> None:
        """Start the processes that are missing, and notice a dead template."""
        if self.failed is not None:
            return
        if self._template is None:
            self._start_template_again()
            return
        if self._template.exit_code() is not None:
            self.wait(0.0)  # for its last messages, which may say why it ended
            if self.failed is None:
                self._bury_template(self._template)
            return
        self._starts.warn_if_slow(time.monotonic())
        for child in self._children:
            if self._may_start(child) and time.monotonic() >= child.restart_at:
                self._request_start(self._template, child)

    def _may_start(self, child: ChildProcess) -> bool:
        """Return True if a process is missing and may be started, now or at its `restart_at`."""
        if not self.loaded or child.alive or child.requested:
            return False
        if not child.is_worker:
            return self.gave_up is None
        return self.ready and not self._stopping.begun

    def _request_start(self, template: TemplateHandle, child: ChildProcess) -> None:
        # Only now: the user's module may have set the timeout.
        child.request(new_process_name(self._run_name, self._settings.host_timeout))
        role = "worker" if child.is_worker else "maintenance"
        request = {"role": role, "id": child.id, "name": child.name}
        if self.ready:
            request["again"] = "yes"
        template.control.send({"fork": request})

    def _note_start(self, process_id: str, pid: int) -> None:
        child = self._children.with_id(process_id)
        if child is None:
            return
        if not child.start(pid, time.monotonic()):
            # The template reports its exit too, but by then its pid names no child.
            self._note_exit(child, 1)
        elif self._stopping.begun and child.is_worker:
            child.send_signal(signal.SIGTERM)

    def _note_exit(self, child: ChildProcess, code: int) -> None:
        """Report the death of a process, and schedule its replacement, later if it dies too often."""
        if child is self._children.maintenance:
            self._read_last_words()
        reason = child.end() or exit_reason(code)
        if child.is_worker and code != 0:
            self._unsettled[child.id] = reason
            self._report_deaths()
        if self._stopping.begun or self.failed is not None:
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
        if self._template is not None and self._template.maintenance in self.selector.get_map():
            self._listen(self._template.maintenance)

    def _report_deaths(self) -> None:
        """Tell the maintenance process which dead workers' tasks it is to recover."""
        for worker_id, reason in self._unsettled.items():
            if self._template is not None:
                self._template.maintenance.send({"dead": worker_id, "reason": reason})

    def _bury_template(self, template: TemplateHandle) -> None:
        """Give up all that came from a dead template, and schedule the next one unless the module itself ended it."""
        code, loaded, was_busy = template.exit_code() or 0, self.loaded, not self._children.workers_are_gone
        reason = exit_reason(code) + (
            "" if loaded else f" before it had loaded {self._options.target.module}"
        )
        template.close_alive_pipe()
        for child in self._children:
            if child.alive:
                # The kernel kills it with the template, or this does. Only then can its tasks be given back.
                child.kill(f"died with the template process, which {reason}")
                child.wait()
                self._note_exit(child, -signal.SIGKILL)
            child.requested = False
        for channel in template.channels:
            if channel in self.selector.get_map():
                self.selector.unregister(channel)
        template.close()
        self._template, self.loaded = None, False
        if self._stopping.begun:
            if was_busy:
                log.error("The template process %s, and the running tasks died with it.", reason)
                self.failed = 1
        elif not loaded and ended_by_itself(code):
            # Nobody killed it: the module, or a library that it uses, has called os._exit() or crashed.
            self._fail(ModuleLoadError(f"The template process {reason}."))
        else:
            self._starts.note_death(f"The template process {reason}", time.monotonic())

    def _start_template_again(self) -> None:
        if self._stopping.begun or time.monotonic() < self._starts.next_at:
            return
        try:
            self.start_template()
        except OSError as error:
            self._starts.note_death(f"The template process cannot be started ({error})", time.monotonic())

    # ---- stop --------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """True once the supervisor may end."""
        if self.failed is not None:
            return True
        if not self._stopping.begun or not self._children.workers_are_gone:
            return False
        # The tasks of dead workers are given back before the maintenance process ends.
        return not self._unsettled or not self._children.maintenance.alive or self._stopping.overdue

    def end(self) -> None:
        """End the maintenance process and the template, in order."""
        # A template that is still loading the module would not listen; it is killed.
        if self._template is not None and self.loaded:
            self._template.maintenance.send({"stop": True})
            self._children.maintenance.wait()
            self._template.control.send({"stop": True})
            self._template.wait(EXIT_HANDLERS_WAIT if self._options.run_atexit else TEMPLATE_EXIT_WAIT)

    def kill_all(self) -> None:
        """Leave no process behind, whatever has happened."""
        for child in self._children:
            child.kill()
        if self._template is not None:
            self._template.kill()
        self.selector.close()
