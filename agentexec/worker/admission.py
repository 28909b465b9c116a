"""Admission: claimed tasks become RUNNING in the record, or are acknowledged, held or given back."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection

from agentexec.activity.changes.admissions import Admissions, Admitted, LeftTask, StartTerms
from agentexec.activity.changes.postponements import Postponed, TaskKeys
from agentexec.activity.changes.stores import record_store
from agentexec.activity.changes.unknown_tasks import MAX_UNKNOWN_SECONDS
from agentexec.activity.changes.versions import NO_VERSIONS, Versions
from agentexec.activity.changes.writer import Writer
from agentexec.activity.live.publisher import EventPublisher
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.errors import SchemaError, UnavailableError
from agentexec.outage import Outage
from agentexec.policy import leave_delay
from agentexec.runtime import Runtime
from agentexec.task import Lease
from agentexec.worker.claim_transaction import ClaimTransaction
from agentexec.worker.failure_log import log_failure
from agentexec.worker.leased_tasks import LeasedTasks
from agentexec.worker.suspects import Suspects

log = logging.getLogger("agentexec.worker")

MAX_WARNED_NAMES = 100
"""Names of tasks about which a process warns once: names come from the queue, so there may be any number."""

NEWER_FIRST = 0.2
"""Seconds for which a new task is given back that is left for workers of a newer version."""

RETRY_WAIT = 2.0
"""Longest wait in seconds between two tries to admit a batch while the database is away."""


class Admitter:
    """Admits claimed tasks, and keeps the suspects that are held while another one runs.

    Threads: the thread that claims calls everything. The end of the process calls `release_held`, after claiming has
    stopped. Admitted tasks are handed over through `begin`.

    Args:
        begin: Starts admitted tasks on the event loop; callable from any thread.
        stopping: True once the process drains: what is not admitted yet is given back.
        task_names: Returns the names of the tasks that this worker has, and leaves tasks of other names for other
            workers. None: tasks of any name are started.
        starts_early: Start debounced tasks before they are due.
        checks_queue: Start only tasks that the record has on the queue from which they were claimed.
        keys: Keys by which this worker's tasks are locked and limited.
        versions: Versions of this worker's tasks.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        tasks: LeasedTasks,
        suspects: Suspects,
        writer: Writer,
        live: EventPublisher,
        *,
        begin: Callable[[Sequence[Admitted]], object],
        stopping: Callable[[], bool],
        task_names: Callable[[], Collection[str]] | None = None,
        checks_queue: bool = True,
        keys: TaskKeys | None = None,
        versions: Versions = NO_VERSIONS,
        starts_early: bool = False,
    ) -> None:
        self._runtime = runtime
        self._store = record_store(runtime)
        self._settings = settings
        self._tasks = tasks
        self._suspects = suspects
        self._writer = writer
        self._live = live
        self._begin = begin
        self._stopping = stopping
        self._starts_early = starts_early
        self._task_names = task_names
        self._checks_queue = checks_queue
        self._keys = keys
        self._versions = versions
        self._held: list[Lease] = []
        self._started_within: dict[Lease, Admitted] = {}
        """Tasks that claims have started in the record, until `admit` starts them here."""
        is_single = self._store.starts_within and runtime.backend.transactional
        self.within_claim = ClaimTransaction(writer, self.start_within) if is_single else None
        """Company of claims that are transactions of a record with a single writer."""
        self._left_until = 0.0
        self._minute_ends, self._left_in_minute = 0.0, 0
        self._warned_names: set[str] = set()

    @property
    def leaves_tasks(self) -> bool:
        """True while tasks that this worker lacks come back to the queue."""
        return time.monotonic() < self._left_until

    @property
    def holds_tasks(self) -> bool:
        """True while suspects are held."""
        return bool(self._held)

    @property
    def startable(self) -> bool:
        """True if a held task may start now."""
        return bool(self._held) and self._suspects.may_start

    def take_startable(self, paused: frozenset[str] = frozenset()) -> list[Lease]:
        """Take out the held tasks if one of them may start, to be admitted with the next batch.

        Those of paused queues are given back.
        """
        if not self.startable:
            return []
        held, self._held = self._held, []
        stopped = [lease for lease in held if self._tasks.queue_of(lease.agent_id) in paused]
        self._release(stopped)
        return [lease for lease in held if lease not in stopped]

    def start_within(self, queue: str, connection: Connection, leases: Sequence[Lease]) -> None:
        """Make those claimed tasks RUNNING that need no decision, within the transaction that claims them.

        `admit`, to be called after its commit, starts them here.
        """
        for lease in leases:
            self._started_within.pop(lease, None)  # its earlier claim was rolled back
        started = self._store.start_within(connection, leases, self._terms(queue))
        self._started_within.update((admitted.lease, admitted) for admitted in started)

    def admit(self, leases: Sequence[Lease]) -> None:
        """Make claimed tasks RUNNING in the record, and start them; waits while the database is away."""
        for queue, group in self._tasks.by_queue(leases):
            others = self._begin_started(group)
            if others:
                self._admit_from(queue, others)
        self._started_within.clear()

    def _begin_started(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Start the tasks that are RUNNING since their claim, and return the others."""
        started = self._started_within
        if not started:
            return leases
        self._apply(Admissions([started[lease] for lease in leases if lease in started]))
        return [lease for lease in leases if lease not in started]

    def _admit_from(self, queue: str, leases: Sequence[Lease]) -> None:
        outage = Outage(log, level=logging.ERROR, maximum=RETRY_WAIT)
        if self.within_claim is not None:
            self.within_claim.close()  # no ending waits while the database is away
        while not self._stopping():
            try:
                leases = self._start_fresh(queue, leases)
                if not leases:
                    return
                admissions = self._admit_in_record(queue, leases)
            except (UnavailableError, SchemaError) as error:
                time.sleep(outage.failed("%s %d claimed task(s) wait until it is back.", error, len(leases)))
            except Exception as error:
                # Caused by a single row: it must not keep the others from starting.
                self._admit_one_by_one(queue, leases, error)
                return
            else:
                self._apply(admissions)
                return
        self._release(leases)

    def release_held(self) -> None:
        """Give back the held tasks."""
        held, self._held = self._held, []
        self._release(held)

    def _start_fresh(self, queue: str, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Start the tasks that need no decision, where the database has a faster way, and return the others."""
        started = self._store.start_fresh(leases, self._terms(queue))
        if not started:
            return leases
        self._apply(Admissions(started))
        fresh = {admitted.lease for admitted in started}
        return [lease for lease in leases if lease not in fresh]

    def _admit_in_record(self, queue: str, leases: Sequence[Lease]) -> Admissions:
        terms = self._terms(queue)
        return self._store.admit(leases, terms, suspect_running=not self._suspects.may_start)

    def _terms(self, queue: str) -> StartTerms:
        return StartTerms(
            utc_now(),
            self._settings.activity_message_started,
            self._settings.max_crashes,
            task_names=None if self._task_names is None else self._task_names(),
            queue=queue if self._checks_queue else None,
            keys=self._keys,
            versions=self._versions,
            starts_early=self._starts_early,
        )

    def _admit_one_by_one(self, queue: str, leases: Sequence[Lease], error: Exception) -> None:
        if len(leases) > 1:
            for lease in leases:
                self._admit_from(queue, [lease])
            return
        # If the record has the task, the reconciler pushes it again, under the epoch in the record.
        log.error("Cannot start task %s: %s.", leases[0].agent_id, type(error).__name__)
        self._tasks.forget(leases[0].agent_id)
        with self._runtime.best_effort(log, "The lease of the task expires by itself."):
            self._runtime.backend.finish(queue, leases)

    def _apply(self, admissions: Admissions) -> None:
        self._start(admissions.started)
        for task in admissions.failed:
            log_failure(log, task.task_name, task.agent_id, task.error)
        self._held = [*self._held, *admissions.held]
        ended = [*admissions.ended, *(task.lease for task in admissions.poisoned)]
        ended_by_queue = self._tasks.by_queue(ended)
        for lease in (*ended, *admissions.refused):
            self._tasks.forget(lease.agent_id)
        for queue, leases in ended_by_queue:
            self._acknowledge(queue, leases)
        if admissions.expired:
            log.info("Canceled %d task(s) that expired before they started.", len(admissions.expired))
        for queue, leases in self._tasks.by_queue(admissions.contradicted):
            self._drop(queue, leases)
        self._leave_all(admissions.left)
        for lease, postponed in admissions.postponed:
            self._postpone(lease, postponed)
        for early in admissions.early:
            self._release([early.lease], early.seconds)
        changed = [*admissions.unknown, *admissions.expired]
        if changed:
            self._live.notify_log_changed([task.agent_id for task in changed])

    def _drop(self, queue: str, leases: Sequence[Lease]) -> None:
        """Remove entries that the record contradicts from the queue, and leave their tasks alone."""
        log.warning(
            "Dropped %d entry(ies) of queue %s that the database contradicts, such as that of task %s: it has the task on "
            "another queue, or under another epoch. The reconciler of its queue adds the task again.",
            len(leases),
            queue,
            leases[0].agent_id,
        )
        for lease in leases:
            self._tasks.forget(lease.agent_id)
        with self._runtime.best_effort(log, "The leases of the entries expire by themselves."):
            self._runtime.backend.finish(queue, leases)

    def _warn_of_left(self, task: LeftTask) -> None:
        """Log once for each name, or name and version, that tasks are left for others."""
        name = f"{task.task_name}\n{task.version}\n{task.is_new}"
        if name in self._warned_names or len(self._warned_names) >= MAX_WARNED_NAMES:
            return
        self._warned_names.add(name)
        if task.is_new:
            log.info("Workers of a newer version have task %s; new ones are left for them.", task.task_name)
        elif task.version is not None:
            log.info(
                "Runs of task %s that began with version %s are left for workers of that version: this one is pinned to its own.",
                task.task_name,
                task.version,
            )
        else:
            log.warning(
                "No worker here has task %s; leaving it for others. It ends in ERROR if no worker has it for %.0f minutes.",
                task.task_name,
                MAX_UNKNOWN_SECONDS / 60,
            )

    def _leave_all(self, left: Sequence[LeftTask]) -> None:
        """Give back the tasks of other workers, and let workers of a newer version come first for a while."""
        for task in left:
            self._warn_of_left(task)
            if task.is_new:
                self._release([task.lease], NEWER_FIRST)
            else:
                self._leave(task)
        if any(task.is_new for task in left):
            time.sleep(2 * NEWER_FIRST)

    def _leave(self, task: LeftTask) -> None:
        """Give back a task that this worker lacks, to be offered again after a while."""
        now = time.monotonic()
        if now >= self._minute_ends:
            self._minute_ends, self._left_in_minute = now + 60.0, 0
        self._left_in_minute += 1
        delay = leave_delay(task.waited, self._left_in_minute, random.random())  # noqa: S311 - spreads load, no secret
        self._left_until = max(self._left_until, now + 2 * delay)
        queue = self._tasks.queue_of(task.lease.agent_id)
        self._tasks.forget(task.lease.agent_id)
        with self._runtime.best_effort(
            log, "A task that is left for others returns to the queue when its lease expires."
        ):
            self._tasks.wait_for_renewal()
            self._runtime.backend.release(queue, task.lease, delay=delay)

    def _postpone(self, lease: Lease, task: Postponed) -> None:
        """Give back a task that may not start yet, or acknowledge one that has ended for it."""
        backend, queue = self._runtime.backend, self._tasks.queue_of(lease.agent_id)
        self._tasks.forget(lease.agent_id)
        if task.error is not None:
            self._acknowledge(queue, [lease])
            return
        with self._runtime.best_effort(log, "A task that waits for its lock returns when its lease expires."):
            self._tasks.wait_for_renewal()
            if task.keeps_place:
                backend.release(queue, lease, delay=task.delay)
                return
            # The queue does not know what it waits for.
            run_at = utc_now().timestamp() + task.delay if task.delay else 0.0
            backend.remove(queue, [lease.agent_id])
            backend.push(queue, [task.entry._replace(epoch=lease.epoch, run_at=run_at)])
            backend.wake(queue, 1)

    def _start(self, started: Sequence[Admitted]) -> None:
        if not started:
            return
        leases = [admitted.lease for admitted in started]
        self._writer.hold(leases)
        self._suspects.add(started)
        self._begin(started)
        self._live.notify_log_changed([lease.agent_id for lease in leases])

    def _acknowledge(self, queue: str, ended: Sequence[Lease]) -> None:
        backend = self._runtime.backend
        # The batch is not admitted again because of this: its other tasks run already.
        with self._runtime.best_effort(log, "The reconciler will acknowledge %d ended task(s).", len(ended)):
            backend.finish(queue, ended)
            backend.notify_done(queue, [lease.agent_id for lease in ended])

    def _release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Give back tasks that were claimed but not started."""
        for lease in leases:
            queue = self._tasks.queue_of(lease.agent_id)
            self._tasks.forget(lease.agent_id)
            with self._runtime.best_effort(
                log, "A claimed task returns to the queue when its lease expires."
            ):
                self._tasks.wait_for_renewal()
                self._runtime.backend.release(queue, lease, delay=delay)
