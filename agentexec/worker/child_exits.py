"""Exits of processes: what is told, counted and given back when one has ended, and when its place is filled again."""

from __future__ import annotations

import logging
import time
from collections import Counter

from agentexec.worker.child_processes import ChildProcess, ChildProcesses, Restart
from agentexec.worker.exits import exit_reason
from agentexec.worker.generation import Generations
from agentexec.worker.host_settings import HostSettings
from agentexec.worker.scoreboard import Scoreboard
from agentexec.worker.stopping import Stopping

log = logging.getLogger("agentexec.supervisor")


class ChildExits:
    """The ended processes of one supervisor, until the maintenance process has given back their tasks.

    Threads: only the supervisor's loop calls it.
    """

    def __init__(
        self,
        children: ChildProcesses,
        generations: Generations,
        board: Scoreboard,
        settings: HostSettings,
        stopping: Stopping,
        restarts: Counter[Restart],
    ) -> None:
        self._children = children
        self._generations = generations
        self._board = board
        self._settings = settings
        self._stopping = stopping
        self._restarts = restarts
        self._unsettled: dict[str, dict[str, str]] = {}

    @property
    def are_settled(self) -> bool:
        """True if the tasks of all dead workers are given back."""
        return not self._unsettled

    def note_settled(self, worker_id: str) -> None:
        """Note that the tasks of a dead worker are given back."""
        self._unsettled.pop(worker_id, None)

    def report_deaths(self) -> None:
        """Tell the maintenance process which dead workers' tasks it is to recover, also on queues that only former code served."""
        current, former = self._generations.current, self._generations.former_queues
        if current is not None:
            if former:
                current.template.maintenance.send({"former_queues": sorted(former)})
            for message in self._unsettled.values():
                current.template.maintenance.send(message)

    def note(self, child: ChildProcess, code: int, *, is_needed: bool) -> None:
        """Report the end of a process, and schedule its replacement, later if it dies too often."""
        reason = child.end() or exit_reason(code)
        if child.is_worker and code != 0:
            self._unsettled[child.id] = {"dead": child.id, "reason": reason}
            if child.culprit is not None:
                self._unsettled[child.id]["culprit"] = str(child.culprit)
            self.report_deaths()
        has_run_its_tasks = self._count(child, code)
        if child in self._children.retired:
            self._children.retired.remove(child)
            log.log(logging.DEBUG if code == 0 else logging.ERROR, "The former %s %s.", child.name, reason)
        elif self._stopping.begun or not is_needed:
            pass
        elif has_run_its_tasks:
            child.restart_now()
            log.info("%s has run its tasks (--max-tasks-per-child); replacing it.", child.name)
        else:
            delay = child.schedule_restart(time.monotonic())
            log.log(
                logging.INFO if code == 0 else logging.ERROR,
                "%s %s; replacing it%s.",
                child.name,
                reason,
                self._children.wait_until_replaced(child, delay),
            )

    def withdraw(self, child: ChildProcess) -> None:
        """Note that a process which was asked for will not start."""
        child.end()
        if child.cell is not None:
            self._board.give_back(child.cell)
            child.cell = None
        if child in self._children.retired:
            self._children.retired.remove(child)

    def _count(self, child: ChildProcess, code: int) -> bool:
        """Count the end of a worker process by its reason. Returns True if it has run its tasks, and was not replaced."""
        cell, child.cell = child.cell, None
        killed_for, child.killed_for, child.culprit = child.killed_for, None, None
        if cell is None:
            return False
        has_run_its_tasks = (
            code == 0
            and cell.started > 0
            and self._settings.max_tasks_per_child > 0
            and child.successor is None
        )
        self._board.give_back(cell)
        if code != 0:
            self._restarts[killed_for or Restart.CRASH] += 1
        elif has_run_its_tasks and not self._stopping.begun:
            self._restarts[Restart.TASKS] += 1
        return has_run_its_tasks
