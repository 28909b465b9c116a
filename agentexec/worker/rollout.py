"""Rollout of new code: a second generation of processes is loaded and checked, and takes over from the first one."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from agentexec.worker.child_processes import ChildProcess, ChildProcesses, Restart
from agentexec.worker.child_watch import ChildWatch
from agentexec.worker.generation import Generation, Generations
from agentexec.worker.target import Target

log = logging.getLogger("agentexec.supervisor")


class Rollout:
    """The rollout of one supervisor. Until the new code has proved good, everything goes on as before.

    Threads: only the supervisor's loop calls it.
    """

    def __init__(
        self, target: Target, children: ChildProcesses, generations: Generations, watch: ChildWatch
    ) -> None:
        self._target = target
        self._children = children
        self._generations = generations
        self._watch = watch
        self._stop_by: int = signal.SIGTERM

    def begin(self, stop_by: int) -> None:
        """Load the module in a new template, whose maintenance process then checks the servers.

        If a rollout is under way, this one replaces it. `stop_by`: signal by which the old workers end.
        """
        self._stop_by = stop_by
        self._discard()
        log.info("Loading %s again; the workers go on meanwhile.", self._target.module)
        try:
            place = ChildProcess("maintenance", is_worker=False)
            self._generations.incoming = self._generations.start(place)
        except OSError as error:
            self.give_up(f"The template process cannot be started ({error}).")

    def give_up(self, reason: str) -> None:
        """End the new generation, for a reason that is a sentence."""
        log.error("%s The workers go on with the code they have.", reason)
        self._discard()

    def promote(self, incoming: Generation, adopt_settings: Callable[[], object]) -> None:
        """Put the new generation into service: it is loaded, and has found the servers in order."""
        old = self._generations.current
        self._generations.promote(incoming)
        self._children.maintenance = incoming.maintenance
        adopt_settings()
        self._warn_of_left_queues(old, incoming)
        log.info("The new code is loaded; replacing %d worker(s).", len(self._children.workers))
        for child in list(self._children.workers):
            if child.alive or child.requested:
                self._watch.replace(child, Restart.RELOAD, self._stop_by)
            else:
                child.restart_now()
        for child in self._children.retired:
            if child.owner is old and child.stop_by is None:
                child.stop_by = self._stop_by

    def _warn_of_left_queues(self, old: Generation | None, incoming: Generation) -> None:
        left = [] if old is None else sorted({*old.queues} - {*incoming.queues})
        if left:
            log.warning(
                "The new code does not serve %s any more. The former workers finish what they run; what waits there needs another "
                "worker: agentexec worker -Q %s",
                " and ".join(left),
                ",".join(left),
            )

    def _discard(self) -> None:
        incoming = self._generations.incoming
        if incoming is not None:
            incoming.maintenance.kill()
            self._generations.remove(incoming)
