"""Starts of processes: which of those that are missing may start, and what the template is told of them."""

from __future__ import annotations

from typing import Any

from agentexec.worker.child_processes import ChildProcess, ChildProcesses
from agentexec.worker.generation import Generation, Generations
from agentexec.worker.host_settings import HostSettings
from agentexec.worker.machine import new_process_name, new_run_name
from agentexec.worker.scoreboard import Scoreboard
from agentexec.worker.stopping import Stopping


class ChildStarts:
    """The starts of one supervisor's processes.

    Threads: only the supervisor's loop calls it.
    """

    def __init__(
        self,
        children: ChildProcesses,
        generations: Generations,
        board: Scoreboard,
        settings: HostSettings,
        stopping: Stopping,
    ) -> None:
        self._children = children
        self._generations = generations
        self._board = board
        self._settings = settings
        self._stopping = stopping
        self._run_name = new_run_name()
        self.ready = False
        """True once the maintenance process has found the servers in order: workers may start."""
        self.gave_up: int | None = None
        """Exit code, once nothing more can start, for after the running tasks."""

    def may_start(self, child: ChildProcess) -> bool:
        """Return True if a process is missing and may be started, now or at its `restart_at`."""
        if child.alive or child.requested or child in self._children.retired:
            return False
        generation = self.generation_of(child)
        if generation is None or not generation.loaded:
            return False
        if child.is_worker:
            return self.ready and not self._stopping.begun
        return self.gave_up is None

    def generation_of(self, child: ChildProcess) -> Generation | None:
        """Return the generation whose template is to fork a process, None if there is none."""
        if child.is_worker or child is self._children.maintenance:
            return self._generations.current
        incoming = self._generations.incoming
        return incoming if incoming is not None and child is incoming.maintenance else None

    def request(self, child: ChildProcess) -> None:
        """Ask the template for a process."""
        generation = self.generation_of(child)
        if generation is None:
            return
        # Only now: the user's module may have set the timeout.
        timeout = generation.settings.get("host_timeout", self._settings.host_timeout)
        child.request(new_process_name(self._run_name, timeout), generation)
        request: dict[str, Any] = {"role": "maintenance", "id": child.id, "name": child.name}
        if child.is_worker:
            child.cell = self._board.take()
            predecessors = [other.cell for other in self._children.predecessors(child)]
            after = [(cell.number, cell.start) for cell in predecessors if cell is not None]
            request |= {"role": "worker", "cell": child.cell.number, "after": after}
        if self.ready:
            request["again"] = "yes"
        generation.template.control.send({"fork": request})
