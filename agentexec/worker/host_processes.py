"""The processes of a supervisor: starts them, acts on what they say, and replaces those that die.

New code is rolled out by a second generation of processes. It is loaded and checked while the first one serves; then its
workers take the place of the others, one by one as they begin to serve.
"""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from agentexec.errors import AgentexecError, ModuleLoadError
from agentexec.worker.channel import Channel
from agentexec.worker.child_exits import ChildExits
from agentexec.worker.child_processes import ChildProcess, ChildProcesses, Restart
from agentexec.worker.child_starts import ChildStarts
from agentexec.worker.child_watch import ChildWatch
from agentexec.worker.exits import ended_by_itself, exit_reason
from agentexec.worker.failed_start import from_message
from agentexec.worker.generation import Generation, Generations, TemplateOptions
from agentexec.worker.host_settings import HostSettings
from agentexec.worker.rollout import Rollout
from agentexec.worker.scoreboard import Scoreboard
from agentexec.worker.stopping import Stopping
from agentexec.worker.template_handle import TemplateStarts

log = logging.getLogger("agentexec.supervisor")

TURN_SECONDS = 1.0
"""Longest time between two turns of the supervisor's loop."""

BUSY_TURN_SECONDS = 0.1
"""Time between two turns while processes are being replaced, or soon may be."""

SPARE_CELLS = 1024
"""Cells of the scoreboard that stay free for the successors of dead processes."""


class HostProcesses:
    """The template, the maintenance process and the worker processes of one supervisor.

    Threads: only the supervisor's loop calls it.

    Args:
        options: Options of the template.
        settings: The supervisor's settings, which adopt what the user's module has set.
        children: The list of processes.
        stopping: The supervisor's stop.
        release: Release of agentexec in this process.
        log_failed_start: Log the reason of a failed start. False where the caller raises it.
        on_loaded: Called when the template has loaded the user's module.
        on_ready: Called when the workers start.
    """

    def __init__(
        self,
        options: TemplateOptions,
        settings: HostSettings,
        children: ChildProcesses,
        stopping: Stopping,
        *,
        release: str,
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
        self.restarts: Counter[Restart] = Counter()
        """Number of replaced worker processes, by reason."""
        self.reconciled = False
        """True once the queue has what the record has, as far as this host is concerned."""
        self.failed: int | None = None
        """Exit code, once everything is to end at once."""
        self.failure: AgentexecError | None = None
        """Reason of a failed start."""
        self._reload_when_ready: int | None = None
        self._release = release
        self._board = Scoreboard.new()
        self._generations = Generations(options, self._board.descriptor, self.selector)
        self._watch = ChildWatch(children, settings, self.restarts)
        self._exits = ChildExits(children, self._generations, self._board, settings, stopping, self.restarts)
        self._child_starts = ChildStarts(children, self._generations, self._board, settings, stopping)
        self._rollout = Rollout(options.target, children, self._generations, self._watch)
        self._starts = TemplateStarts(options.target.module)

    @property
    def ready(self) -> bool:
        """True once the maintenance process has found the servers in order."""
        return self._child_starts.ready

    @property
    def gave_up(self) -> int | None:
        """Exit code, once nothing more can start, for after the running tasks."""
        return self._child_starts.gave_up

    @property
    def loaded(self) -> bool:
        """True while a template in service has loaded the user's module."""
        return self._generations.current is not None and self._generations.current.loaded

    # ---- messages ----------------------------------------------------------------------------------------

    def wait(self, timeout: float = TURN_SECONDS) -> list[object]:
        """Wait for messages, act on them, and return the other objects of the selector that are readable."""
        # Only children that may start end the wait early. Others wait for an event, and would keep this loop spinning.
        now = time.monotonic()
        due = [
            child.restart_at - now for child in self._all_children() if self._child_starts.may_start(child)
        ]
        if self._generations.current is None and not self._stopping.begun:
            due.append(self._starts.next_at - now)
        if (
            self._settings.max_tasks_per_child
            or self._settings.burst
            or self._children.retired
            or self._generations.retiring
        ):
            timeout = min(timeout, BUSY_TURN_SECONDS)
        others: list[object] = []
        for key, _ in self.selector.select(max(0.0, min([timeout, *due]))):
            if isinstance(key.fileobj, Channel):
                self._listen(key.fileobj)
            else:
                others.append(key.fileobj)
        return others

    def _listen(self, channel: Channel) -> None:
        generation = self._generations.of(channel)
        if generation is None:
            return  # closed a moment ago
        messages = channel.read()
        if messages is None:
            self._generations.unregister(channel)
            if channel is generation.template.control:
                # The template is about to end. Nothing else reports that before the next turn.
                generation.template.wait(TURN_SECONDS)
            return
        for message in messages:
            try:
                self._act_on(message, generation)
            except (KeyError, TypeError, ValueError):
                channel.warn_once()

    def _act_on(self, message: dict[str, Any], generation: Generation) -> None:
        if "failed" in message:
            self._note_failure(from_message(message, self._options.target), generation)
        elif "loaded" in message:
            generation.settings, generation.can_fork = message["settings"], message["forks"]
            generation.release = str(message["release"])
            self._note_loaded(generation)
        elif "ready" in message:
            self._note_ready(generation)
        elif "reconciled" in message:
            self.reconciled = True
        elif "settled" in message:
            self._exits.note_settled(message["settled"])
        else:
            self._act_on_child(message, generation)

    def _act_on_child(self, message: dict[str, Any], generation: Generation) -> None:
        """Act on what a template says about the processes that it forks."""
        for child in self._all_children():
            if child.owner is not generation:
                continue
            if message.get("forked") == child.id:
                self._note_start(child, message["pid"])
            elif message.get("unforked") == child.id:
                child.fail_to_start(f"could not be started ({message['error']})", time.monotonic())
                self._note_exit(child, 1)
            elif message.get("exited") == child.pid and child.alive:
                self._note_exit(child, message["code"])

    def _all_children(self) -> list[ChildProcess]:
        """Return the places of all processes, also the maintenance processes of other generations."""
        others = [each.maintenance for each in self._generations if each is not self._generations.current]
        return [*self._children, *others]

    def _note_failure(self, error: AgentexecError, generation: Generation) -> None:
        if generation is self._generations.current:
            self._fail(error)
        elif generation is self._generations.incoming:
            self._rollout.give_up(str(error))

    def _fail(self, error: AgentexecError) -> None:
        """Start nothing more, and end: after the running tasks, if there are any."""
        if self.ready or self._log_failed_start:
            log.error("%s", error)
        if not self.ready:
            self.failed, self.failure = error.exit_code, error
            return
        self._child_starts.gave_up = error.exit_code
        if not self._stopping.begun:
            self._stopping.drain()

    def _note_loaded(self, generation: Generation) -> None:
        generation.loaded = True
        if generation is self._generations.current:
            self._starts.note_loaded(time.monotonic())
            self._adopt_settings(generation)
        elif generation is self._generations.incoming and generation.release != self._release:
            self._rollout.give_up(
                f"agentexec {generation.release} is installed now, and this worker is {self._release}: restart it."
            )

    def _adopt_settings(self, generation: Generation) -> None:
        """Adopt the settings that the user's module has set, as this process does not import it."""
        for name, value in generation.settings.items():
            setattr(self._settings, name, value)
        self._on_loaded()
        self._children.set_number_of_workers(self._settings.num_workers)
        if not generation.can_fork:
            log.info("The module has started threads: each worker loads it by itself (slower, more memory).")

    def _note_ready(self, generation: Generation) -> None:
        """Start the workers: the maintenance process has found the database and the state backend in order."""
        if generation is self._generations.incoming and not self._stopping.begun:
            self._starts.note_loaded(time.monotonic())
            self._rollout.promote(generation, lambda: self._adopt_settings(generation))
        elif generation is not self._generations.current:
            return
        elif not self.ready:
            log.info(
                "Starting %d worker(s) with %d task(s) each on %s.",
                len(self._children.workers),
                self._settings.worker_concurrency,
                self._settings.queues_text,
            )
        self._child_starts.ready = True
        self._on_ready()
        self._exits.report_deaths()
        if self._reload_when_ready is not None:
            stop_by, self._reload_when_ready = self._reload_when_ready, None
            self.reload(stop_by)

    def reload(self, stop_by: int = signal.SIGTERM) -> None:
        """Load the module again, and replace all processes; the old workers end by a signal once the new ones serve."""
        if self._stopping.begun:
            return
        if not self.ready:
            # What is being loaded may be older than the change.
            self._reload_when_ready = stop_by
        elif self._board.free_cells < SPARE_CELLS:
            log.warning("The code is not loaded again, as too many former workers have not ended yet.")
        else:
            self._starts.next_at = 0.0
            self._rollout.begin(stop_by)

    # ---- processes ---------------------------------------------------------------------------------------

    def start_template(self) -> None:
        """Start a template, which loads the user's module."""
        self._starts.note_start(time.monotonic())
        self._generations.current = self._generations.start(self._children.maintenance)

    def turn(self) -> None:
        """Notice what has happened to the processes, and start those that are missing."""
        if self.failed is not None:
            return
        self._bury_templates()
        if self._generations.current is None:
            self._start_template_again()
        else:
            self._starts.warn_if_slow(time.monotonic())
        for child in self._all_children():
            if self._child_starts.may_start(child) and time.monotonic() >= child.restart_at:
                self._child_starts.request(child)
        self._watch.turn(time.monotonic(), stopping=self._stopping.begun)
        self._generations.end_unused(self._is_used)

    def _note_start(self, child: ChildProcess, pid: int) -> None:
        if not child.start(pid, time.monotonic()):
            # The template reports its exit too, but by then its pid names no child.
            self._note_exit(child, 1)
        elif self._stopping.begun and child.is_worker:
            child.send_signal(signal.SIGTERM)

    def _note_exit(self, child: ChildProcess, code: int) -> None:
        if not child.is_worker:
            self._read_last_words(child)
        is_needed = child.is_worker or self._child_starts.generation_of(child) is not None
        self._exits.note(child, code, is_needed=is_needed and self.failed is None)

    def _read_last_words(self, maintenance: ChildProcess) -> None:
        """Read what a maintenance process said before its end: perhaps that no other one can do better."""
        for generation in self._generations:
            channel = generation.template.maintenance
            if generation.maintenance is maintenance and channel in self.selector.get_map():
                self._listen(channel)
                return

    def _is_used(self, generation: Generation) -> bool:
        """Return True if processes of a generation live or are about to start."""
        return any(
            child.owner is generation and (child.alive or child.requested) for child in self._all_children()
        )

    def _bury_templates(self) -> None:
        for generation in list(self._generations):
            if generation.template.exit_code() is None or generation.kill_at is not None:
                continue
            self.wait(0.0)  # for its last messages, which may say why it ended
            if self.failed is not None:
                return
            if generation in list(self._generations):
                self._bury(generation)

    def _bury(self, generation: Generation) -> None:
        """Give up all that came from a dead template, and schedule the next one unless the module itself ended it."""
        code, loaded = generation.template.exit_code() or 0, generation.loaded
        reason = exit_reason(code) + (
            "" if loaded else f" before it had loaded {self._options.target.module}"
        )
        is_current = generation is self._generations.current
        is_incoming = generation is self._generations.incoming
        was_busy = self._end_children(generation, reason)
        self._generations.remove(generation)
        if is_incoming:
            self._rollout.give_up(f"The template process of the new code {reason}.")
        elif self._stopping.begun:
            if was_busy:
                log.error("The template process %s, and the running tasks died with it.", reason)
                self.failed = self.failed or (1 if is_current else None)
        elif not is_current:
            log.error(
                "The template process of the former code %s, and its running tasks died with it.", reason
            )
        elif not loaded and ended_by_itself(code):
            # Nobody killed it: the module, or a library that it uses, has called os._exit() or crashed.
            self._fail(ModuleLoadError(f"The template process {reason}."))
        else:
            self._starts.note_death(f"The template process {reason}", time.monotonic())

    def _end_children(self, generation: Generation, reason: str) -> bool:
        """Note the end of the processes of a dead template. Returns False if no worker process is among them."""
        generation.template.close_alive_pipe()
        children = [child for child in self._all_children() if child.owner is generation]
        for child in children:
            if child.alive:
                # The kernel kills it with the template, or this does. Only then can its tasks be given back.
                child.kill(f"died with the template process, which {reason}")
                child.wait()
                self._note_exit(child, -signal.SIGKILL)
            elif child.requested:
                self._exits.withdraw(child)
        return any(child.is_worker for child in children)

    def _start_template_again(self) -> None:
        if self._stopping.begun or time.monotonic() < self._starts.next_at:
            return
        try:
            self.start_template()
        except OSError as error:
            self._starts.note_death(f"The template process cannot be started ({error})", time.monotonic())

    def start_over(self) -> None:
        """Start again after a failed start, as the module has changed."""
        self.failed = self.failure = None
        for generation in list(self._generations):
            generation.maintenance.kill()
            self._generations.remove(generation)
        self._children.maintenance = ChildProcess("maintenance", is_worker=False)
        self.start_template()

    # ---- stop --------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """True once the supervisor may end."""
        if self.failed is not None:
            return True
        if not self._stopping.begun or not self._children.workers_are_gone:
            return False
        # The tasks of dead workers are given back before the maintenance process ends.
        return self._exits.are_settled or not self._children.maintenance.alive or self._stopping.overdue

    def end(self) -> None:
        """End the maintenance process and the template, in order."""
        self._generations.end_all()

    def kill_all(self) -> None:
        """Leave no process behind, whatever has happened."""
        for child in self._children:
            child.kill()
        self._generations.kill_all()
        self._board.close()
        self.selector.close()
