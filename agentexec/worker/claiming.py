"""Claiming: the thread that takes tasks from the queue as slots become free."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agentexec.config import Settings
from agentexec.errors import UnavailableError
from agentexec.outage import Outage
from agentexec.state.backend import StateBackend
from agentexec.state.groups import NO_LIMITS
from agentexec.task import Lease
from agentexec.worker.claim_transaction import ClaimTransaction
from agentexec.worker.lease_clock import present
from agentexec.worker.leased_tasks import LeasedTasks
from agentexec.worker.queue_claims import Claimed, NoPauses, QueueClaims, SupportsPauses
from agentexec.worker.slots import Slots
from agentexec.worker.suspects import Suspects
from agentexec.worker.turnover import TAKEOVER_WAIT, Turnover

log = logging.getLogger("agentexec.worker")

IDLE_WAIT = 5.0
"""Seconds of one wait for tasks: the longest that a lost wake-up delays a task."""

HELD_WAIT = 0.5
"""Seconds of one wait while suspects are held."""

YIELD_WAIT = 0.1
"""Seconds by which an idle worker that left tasks for others claims late, so that a worker that has them comes first."""

CLAIM_LIMIT = 200
"""Maximum number of tasks in one claim. A bigger batch delays its first task more than it saves."""

MAX_WRITER_BACKLOG = 2_000
"""Unwritten endings above which no tasks are claimed."""

BACKLOG_WAIT = 0.01
"""Seconds between two looks at the backlog of the writer."""

GATHER_SECONDS = 0.0002
"""Seconds for which a claim in place of tasks that have ended waits for more of them, as long as there are more each time."""

OUTAGE_WAIT = 2.0
"""Longest wait in seconds between two claims while a server is away."""


class SupportsAdmit(Protocol):
    """Parts of the Admitter that claiming uses."""

    @property
    def holds_tasks(self) -> bool:
        """True while suspects are held."""
        ...

    @property
    def leaves_tasks(self) -> bool:
        """True while tasks that this worker lacks come back to the queue."""
        ...

    @property
    def startable(self) -> bool:
        """True if a held task may start now."""
        ...

    def take_startable(self, paused: frozenset[str]) -> list[Lease]:
        """Take out the held tasks if one of them may start, and give those of paused queues back."""
        ...

    def admit(self, leases: Sequence[Lease]) -> None:
        """Start the claimed tasks that may run."""
        ...

    @property
    def within_claim(self) -> ClaimTransaction | None:
        """Company of claims in their transactions, if the database has a single writer."""
        ...


class Claimer:
    """Claims tasks for free slots and has them admitted, until the process drains.

    Threads: its own thread does the work. Any other may call `wait_until_idle`, and sets `draining` to end it.

    Args:
        turnover: How much this process may claim beside the process that it replaces, and before its own end.
        started: Returns the number of tasks that this process has started.
        on_used_up: Called when this process may start no more tasks.
        backlog: Returns the number of endings that are not written yet.
        draining: Event that ends claiming; `slots.notify()` makes the thread see it.
        pauses: The queues that are paused; by default none ever is.
        limits: Limits of concurrency by task name.
    """

    def __init__(
        self,
        backend: StateBackend,
        settings: Settings,
        worker_id: str,
        *,
        slots: Slots,
        suspects: Suspects,
        tasks: LeasedTasks,
        admission: SupportsAdmit,
        turnover: Turnover,
        started: Callable[[], int],
        on_used_up: Callable[[], object],
        backlog: Callable[[], int],
        draining: threading.Event,
        pauses: SupportsPauses | None = None,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> None:
        self._joins = admission.within_claim
        self._queues = QueueClaims(backend, settings, worker_id, pauses or NoPauses(), limits, self._joins)
        self._slots = slots
        self._suspects = suspects
        self._tasks = tasks
        self._admission = admission
        self._turnover = turnover
        self._started = started
        self._on_used_up = on_used_up
        self._backlog = backlog
        self._draining = draining
        self._idle = threading.Event()
        self.active_at: float | None = None
        """Monotonic moment at which it started or last came round, with or without tasks; None before."""
        self._thread = threading.Thread(target=self._run, name="agentexec-fetcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_until_idle(self, timeout: float) -> None:
        """Return when no claim is under way, or after `timeout` seconds."""
        self._idle.wait(timeout)

    def _run(self) -> None:
        outage = Outage(log, recovered="Claiming tasks again.", level=logging.ERROR, maximum=OUTAGE_WAIT)
        self.active_at = time.monotonic()
        while not self._draining.is_set():
            self._wait_for_slot()
            if self._backlog() > MAX_WRITER_BACKLOG:
                self._leave_endings()
                time.sleep(BACKLOG_WAIT)
                continue
            try:
                if self.claim():
                    outage.recovered()
                self.active_at = time.monotonic()
            except UnavailableError as error:
                self._leave_endings()
                time.sleep(outage.failed("%s No tasks are claimed until it is back.", error))
            except Exception:
                self._leave_endings()
                time.sleep(outage.failed_unexpectedly("Claiming failed; trying again."))
        self._leave_endings()
        self._idle.set()

    def _wait_for_slot(self) -> None:
        """Wait for a slot that is free, and for those that follow at once, so that one claim fills them."""
        if self._joins is not None:
            self._joins.open(self._slots.notify)
        waited = self._slots.wait(self._need_not_wait, IDLE_WAIT)
        if waited and self._joins is not None:
            free = 0
            while free < self._slots.free and self._slots.used:
                free = self._slots.free
                time.sleep(GATHER_SECONDS)

    def _need_not_wait(self) -> bool:
        waits = self._joins is not None and self._joins.waits
        return waits or self._draining.is_set() or self._admission.startable

    def _leave_endings(self) -> None:
        """Leave endings to the writer: no claim follows at once."""
        if self._joins is not None:
            self._joins.close()

    def claim(self) -> bool:
        """Claim tasks and have them admitted, or wait for tasks. Returns False if there were none."""
        limit = 0 if self._draining.is_set() else self._acquire()
        if self._draining.is_set() or (limit == 0 and not self._admission.startable):
            self._slots.release(limit)
            self._leave_endings()
            return False
        since = present()
        self._turnover.begin_claim()
        claimed = self._claim(limit)
        held = self._admission.take_startable(self._queues.paused())
        if not claimed.leases and not held:
            self._leave_endings()
            self._turnover.end_claim(empty=not self._tasks.any)
            self._idle.set()
            self._wait_for_tasks(claimed.next_due)
            self._idle.clear()
            return False
        for queue, leases in claimed.leases.items():
            self._tasks.add(leases, since, queue)
        self._admission.admit([*held, *itertools.chain(*claimed.leases.values())])
        self._turnover.note_started(self._started())
        self._turnover.end_claim(empty=False)
        return True

    def _acquire(self) -> int:
        """Take as many free slots as this process may claim tasks for."""
        if self._suspects.on_trial or (self._admission.holds_tasks and self._holds_only_for_newcomers()):
            self._leave_endings()
            self._suspects.wait_for_change(HELD_WAIT)
            return 0
        free = self._slots.free
        quota = self._turnover.quota(self._started(), free)
        if quota is None:
            self._leave_endings()
            self._on_used_up()
            self._draining.wait(TAKEOVER_WAIT)
            return 0
        if free > 0 and not quota:
            # The predecessor still uses them, and does not tell when it does not.
            self._leave_endings()
            self._draining.wait(TAKEOVER_WAIT)
        return self._slots.acquire(min(CLAIM_LIMIT, quota))

    def _holds_only_for_newcomers(self) -> bool:
        return not self._suspects.any_running and not self._admission.startable

    def _claim(self, limit: int) -> Claimed:
        """Claim up to `limit` tasks for as many acquired slots, and release the slots that stay unused."""
        unused = limit
        try:
            claimed = self._queues.claim(limit)
            unused = limit - sum(map(len, claimed.leases.values()))
        finally:
            self._slots.release(unused)
        return claimed

    def _wait_for_tasks(self, next_due: float | None) -> None:
        if self._admission.holds_tasks:
            # A held task starts when the running suspect ends; the state backend does not know about that.
            self._suspects.wait_for_change(HELD_WAIT)
            return
        longest = min(IDLE_WAIT, self._turnover.idle_wait)
        self._queues.wait(longest if next_due is None else min(longest, next_due))
        if self._admission.leaves_tasks:
            self._draining.wait(YIELD_WAIT)
