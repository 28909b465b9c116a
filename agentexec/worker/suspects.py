"""Suspects: tasks that may be one crash from their end, of which a process runs one at a time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from agentexec.activity.changes.admissions import Admitted
from agentexec.errors import UnavailableError
from agentexec.outage import Outage
from agentexec.task import Lease

log = logging.getLogger("agentexec.worker")

CLEAR_WAIT = 2.0
"""Longest wait in seconds between two tries to clear a task's crashes in the record."""


TRIAL_SECONDS = 5.0
"""Seconds for which a suspect and a task that has just started do not run side by side: if the process dies, the suspect is
blamed, and a newcomer may have killed it. After that time the slots are worth more."""


class Suspects:
    """The suspects that run in this process, and the tasks whose crashes are cleared once they wait for others.

    Threads: any thread may call any method; a lock guards the state.

    Args:
        max_crashes: Crashes in a row that end a task.
        clear_crashes: Clears a task's crashes in the record; raises UnavailableError.
        submit: Runs a blocking call in another thread.
        on_absolved: Called, without the lock, when a task is not a suspect any more.
    """

    def __init__(
        self,
        max_crashes: int,
        *,
        clear_crashes: Callable[[Lease], object],
        submit: Callable[[Callable[[], object]], object],
        on_absolved: Callable[[], object],
    ) -> None:
        self._max_crashes = max_crashes
        self._clear_crashes = clear_crashes
        self._submit = submit
        self._on_absolved = on_absolved
        self._lock = threading.Lock()
        self._suspects: set[UUID] = set()
        self._trial_ends = -math.inf
        self._newcomers: dict[UUID, float] = {}
        self._crashed: dict[UUID, int] = {}
        self._clearing: dict[UUID, int] = {}
        self._changed = threading.Event()

    def add(self, started: Iterable[Admitted]) -> None:
        """Note tasks that start: whether they have crashes, and whether these make them suspects."""
        now = time.monotonic()
        with self._lock:
            for admitted in started:
                agent_id = admitted.lease.agent_id
                if not admitted.crashes.total:
                    self._newcomers[agent_id] = now
                    continue
                self._crashed[agent_id] = admitted.lease.epoch
                if admitted.crashes.is_suspect(self._max_crashes):
                    self._suspects.add(agent_id)
                    self._trial_ends = now + TRIAL_SECONDS
                else:
                    self._newcomers[agent_id] = now

    @property
    def any_running(self) -> bool:
        """True while a suspect runs."""
        return bool(self._suspects)

    @property
    def may_start(self) -> bool:
        """True if a suspect may start: no other one runs, and no task that has started a short time ago."""
        if self._suspects:
            return False
        recent = time.monotonic() - TRIAL_SECONDS
        with self._lock:
            return all(started < recent for started in self._newcomers.values())

    @property
    def on_trial(self) -> bool:
        """True while a suspect runs that has started a short time ago, so that nothing new should run beside it."""
        return bool(self._suspects) and time.monotonic() < self._trial_ends

    def wait_for_change(self, timeout: float) -> None:
        """Return when a task stops being a suspect, or after `timeout` seconds."""
        self._changed.wait(timeout)
        self._changed.clear()

    def note_wait(self, agent_id: UUID) -> None:
        """Absolve a task that begins to wait for others: it got this far, and they may be held back because of it.

        Its crashes are cleared in the record first.
        """
        with self._lock:
            if agent_id in self._clearing:
                # It waits again before the record is written, which absolves it.
                return
            epoch = self._crashed.pop(agent_id, None)
            if epoch is not None:
                self._clearing[agent_id] = epoch
        if epoch is None:
            self.absolve(agent_id)
        else:
            lease = Lease(agent_id, epoch)
            self._submit(lambda: self._clear(lease))

    def end_attempt(self, agent_id: UUID) -> None:
        """Note that a task's handler has ended: its crashes are not cleared any more."""
        with self._lock:
            self._newcomers.pop(agent_id, None)
            if self._crashed:
                self._crashed.pop(agent_id, None)
            if self._clearing:
                self._clearing.pop(agent_id, None)

    def absolve(self, agent_id: UUID) -> None:
        """Note that a task is not a suspect any more, so that the next one may start."""
        with self._lock:
            if agent_id not in self._suspects:
                return
            self._suspects.remove(agent_id)
        self._changed.set()
        self._on_absolved()

    def _clear(self, lease: Lease) -> None:
        # The next suspect starts only after the record is written: it may crash this process immediately.
        outage = Outage(log, maximum=CLEAR_WAIT)
        while self._clearing.get(lease.agent_id) == lease.epoch:
            try:
                self._clear_crashes(lease)
                break
            except UnavailableError as error:
                time.sleep(
                    outage.failed("%s Task %s remains a suspect until it is back.", error, lease.agent_id)
                )
        self.absolve(lease.agent_id)
