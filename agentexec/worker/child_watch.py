"""Watch over the worker processes that live: replaces those that hang, are too large, or have run their number of tasks."""

from __future__ import annotations

import logging
import time
from collections import Counter

from agentexec.worker.child_processes import ChildProcess, ChildProcesses, Restart
from agentexec.worker.host_settings import HostSettings
from agentexec.worker.scoreboard import State
from agentexec.worker.stopping import KILL_AFTER

log = logging.getLogger("agentexec.supervisor")

MIB = 1024 * 1024

LOOK_SECONDS = 1.0
"""Seconds between two looks at the memory of the processes."""

OWN_GAP = 5.0
"""Seconds between two turns from which this process must have stood still itself, and perhaps the others with it."""


class ChildWatch:
    """The supervisor's watch over its worker processes.

    A process that is replaced goes on until its successor serves, then finishes its tasks. Only one that hangs is killed.

    Threads: only the supervisor's loop calls it.

    Args:
        restarts: Number of replaced processes, by reason.
    """

    def __init__(self, children: ChildProcesses, settings: HostSettings, restarts: Counter[Restart]) -> None:
        self._children = children
        self._settings = settings
        self._restarts = restarts
        self._last_turn = self._trusted_from = time.monotonic()
        self._next_look = 0.0
        self._warned = False

    def turn(self, now: float, *, stopping: bool) -> None:
        """Look at every process, at a monotonic moment."""
        if now - self._last_turn > OWN_GAP:
            self._trusted_from = now
        self._last_turn = now
        self._kill_hung(now)
        if stopping:
            return
        self._replace_used_up()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._replace_large()
        self._end_retired(now)

    def _kill_hung(self, now: float) -> None:
        timeout = self._settings.hang_timeout
        for child in self._children.all_workers if timeout else []:
            answered_at = child.cell.answered_at if child.cell is not None and child.alive else 0.0
            if not answered_at or child.killed_for or now - max(answered_at, self._trusted_from) < timeout:
                continue
            log.error(
                "%s hangs: its event loop has not answered for %g s. It is killed, and its tasks go back to the queue.",
                child.name,
                timeout,
            )
            child.killed_for = Restart.HANG
            child.culprit = None if child.cell is None else child.cell.culprit
            child.kill(f"was killed because its event loop did not answer for {timeout:g} s")

    def _replace_used_up(self) -> None:
        if not self._settings.max_tasks_per_child:
            return
        for child in list(self._children.workers):
            if child.state in (State.DUE, State.RETIRING):
                log.info("%s has run its tasks (--max-tasks-per-child); replacing it.", child.name)
                self.replace(child, Restart.TASKS)

    def _replace_large(self) -> None:
        limit = self._settings.max_memory_per_child * MIB
        for child in list(self._children.workers) if limit else []:
            rss = child.rss_bytes() if child.serves else 0
            if rss <= limit:
                continue
            if child.cell is not None and child.cell.started:
                log.info(
                    "%s holds %d MiB (--max-memory-per-child); replacing it after its running tasks.",
                    child.name,
                    rss // MIB,
                )
                self.replace(child, Restart.MEMORY)
            elif not self._warned:
                # Its successors would be as large.
                self._warned = True
                log.warning(
                    "AGENTEXEC_MAX_MEMORY_PER_CHILD is %d MiB, and %s holds %d MiB before its first task: raise the limit.",
                    limit // MIB,
                    child.name,
                    rss // MIB,
                )

    def replace(self, child: ChildProcess, reason: Restart, stop_by: int | None = None) -> None:
        """Replace a process that goes on until its successor serves; `stop_by` None: it takes any time to finish."""
        self._restarts[reason] += 1
        self._children.replace(child, stop_by)

    def _end_retired(self, now: float) -> None:
        for child in self._children.retired:
            heir = child
            while heir.successor is not None:
                heir = heir.successor
            if child.alive and (heir.serves or heir in self._children.retired):
                child.tell_to_end(now)
            if child.stop_by is None or child.told_at is None or child.exit_reason is not None:
                continue
            if now - child.told_at >= self._settings.graceful_shutdown_timeout + KILL_AFTER:
                log.error("Killing the former %s: it did not stop in time.", child.name)
                child.kill("was killed because it did not stop in time")
