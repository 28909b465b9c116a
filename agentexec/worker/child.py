"""A worker process: claim, execute, finish.

One asyncio loop runs the handlers. Beside it stand four threads, each with one duty: the fetcher claims tasks
and makes them RUNNING, the writer records what happens, the heartbeat keeps the leases, the mailbox hears of
cancels. Blocking calls are theirs; the loop only ever computes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from sqlalchemy import Connection

from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.postgres_fast_path import start_fresh_tasks
from agentexec.activity.changes.transitions import Admissions, Admitted, admit_claims, clear_crashes
from agentexec.activity.changes.writer import Writer
from agentexec.activity.live.publisher import EventPublisher
from agentexec.activity.mailbox import Mailbox
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.errors import SchemaError, UnavailableError
from agentexec.journal.wake_ups import ready_tasks
from agentexec.outage import backoff
from agentexec.policy import low_priority_quota
from agentexec.registry import Registry
from agentexec.runtime import Runtime
from agentexec.task import Lease, Status
from agentexec.worker.executor import execute_attempt, permanent_failure
from agentexec.worker.lease_renewal import LeaseRenewer
from agentexec.worker.presence import Presence
from agentexec.worker.slots import Slots

log = logging.getLogger("agentexec.worker")

IDLE_WAIT = 5.0
"""Seconds of one wait for work: the longest that a lost wake-up delays a task."""

HELD_WAIT = 0.5
"""The same while suspects are held back."""

CLAIM_LIMIT = 200
"""Most tasks in one claim: a bigger batch delays the start of its first task more than it saves."""

WRITER_BACKLOG = 2_000
"""Endings not yet written above which no more tasks are claimed."""

MOST_WAITING_THREADS = 10_000
"""Handlers that are plain functions and wait for other tasks at the same time, each in its thread."""

LEAVE_SECONDS = 0.2
"""Between two looks, while the worker stops, for tasks that have begun to wait."""

STOPPING = "The worker stopped before the task was finished; it goes back to the queue."
GRACE_AFTER_CANCEL = 5.0
"""Seconds that canceled handlers get to clean up."""


class Worker:
    """The tasks of one worker process, from claim to acknowledgement."""

    def __init__(self, registry: Registry, runtime: Runtime, settings: Settings, worker_id: str) -> None:
        self._registry = registry
        self._runtime = runtime
        self._settings = settings
        self._queue = settings.queue_name
        self._id = worker_id
        self._backend = runtime.backend
        self._leases: dict[UUID, int] = {}
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._suspects: set[UUID] = set()
        self._held: list[Lease] = []
        self._aborted: set[UUID] = set()
        self._slots = self._make_slots()
        self._crashed: dict[UUID, int] = {}
        self._draining = False
        self._idle = threading.Event()
        self._suspects_changed = threading.Event()
        self._claimed = 0
        self._live = runtime.get_shared(EventPublisher, lambda: EventPublisher(runtime))
        self._writer = Writer(
            runtime.engine,
            result_ttl=settings.result_ttl,
            acknowledge=self._acknowledge if self._backend.transactional else None,
            settle=self._settle,
            live=self._live,
        )
        self._heartbeat = LeaseRenewer(
            runtime, self._queue, worker_id, settings.lease_seconds, self._leases, self._on_lease_lost
        )
        self._presence = Presence(runtime, settings, worker_id, lambda: (len(self._running), self._draining))
        self._fetcher = threading.Thread(target=self._fetch, name="agentexec-fetcher", daemon=True)
        self._handler_threads = ThreadPoolExecutor(
            settings.worker_concurrency + MOST_WAITING_THREADS, thread_name_prefix="agentexec-task"
        )

    def _make_slots(self) -> Slots:
        return Slots(self._settings.worker_concurrency, on_release=self._on_slot_released)

    async def run(self) -> None:
        """Work until `drain` is called and every task has ended or is handed back."""
        self._loop = asyncio.get_running_loop()
        # Plain functions inside agents and steps may wait for other tasks too.
        self._loop.set_default_executor(self._handler_threads)
        self._runtime.slots = self._slots
        self._stopped = asyncio.Event()
        self._hurry = asyncio.Event()
        self._runtime.progress_writer = self._writer
        self._writer.start()
        self._heartbeat.start()
        self._presence.start()
        mailbox = self._runtime.get_shared(Mailbox, lambda: Mailbox(self._runtime, self._id))
        mailbox.on_cancel(lambda agent_id: self._loop.call_soon_threadsafe(self._abort, agent_id))
        self._fetcher.start()
        await self._stopped.wait()
        await self._finish_running()
        # The end of the event loop waits for the threads of its executor: not for those that cannot be stopped.
        self._loop.set_default_executor(ThreadPoolExecutor(1))
        await asyncio.to_thread(self._close)

    def drain(self) -> None:
        """Stop claiming; running tasks get the graceful time-out. To be called on the loop."""
        if not self._draining:
            self._draining = True
            self._slots.notify()
            self._stopped.set()

    def drain_now(self) -> None:
        """Drain without waiting: running tasks are canceled and handed back. To be called on the loop."""
        self.drain()
        self._hurry.set()

    # ---- claim -------------------------------------------------------------------------------------------

    def _fetch(self) -> None:
        failures = 0
        while not self._draining:
            self._slots.wait(lambda: self._draining or self._startable, IDLE_WAIT)
            if self._writer.backlog > WRITER_BACKLOG:
                time.sleep(0.01)
                continue
            try:
                if not self._claim():
                    continue
                if failures:
                    log.info("Tasks are fetched again.")
                failures = 0
            except UnavailableError as error:
                failures += 1
                if failures == 1:
                    log.error("%s No tasks are fetched until it is back.", error)
                time.sleep(backoff(failures, maximum=2.0))
            except Exception:
                failures += 1
                log.exception("Fetching failed; trying again.")
                time.sleep(backoff(failures))
        self._idle.set()

    @property
    def _startable(self) -> bool:
        """True if a held task may start now."""
        return bool(self._held) and not self._suspects

    def _claim(self) -> bool:
        """One turn: claim and start, or wait for work. False if there was nothing."""
        limit = 0 if self._draining else self._slots.acquire(CLAIM_LIMIT)
        if self._draining or (limit == 0 and not self._startable):
            self._slots.release(limit)
            return False
        unused = limit
        try:
            claimed = self._backend.claim(
                self._queue,
                self._id,
                limit=limit,
                low_quota=low_priority_quota(self._claimed, limit),
                lease_seconds=self._settings.lease_seconds,
            )
            unused = limit - len(claimed.leases)
        finally:
            self._slots.release(unused)
        leases, held = claimed.leases, self._held if self._startable else []
        if not leases and not held:
            self._idle.set()
            self._wait_for_work(claimed.next_due)
            self._idle.clear()
            return False
        self._claimed += len(leases)
        self._leases.update(leases)
        if held:
            self._held = []
        self._start([*held, *leases])
        return True

    def _wait_for_work(self, next_due: float | None) -> None:
        if self._held:
            # A held task starts when the suspect before it has ended, of which the state backend knows nothing.
            self._suspects_changed.wait(HELD_WAIT)
            self._suspects_changed.clear()
            return
        self._backend.wait(self._queue, IDLE_WAIT if next_due is None else min(IDLE_WAIT, next_due))

    def _start(self, leases: list[Lease]) -> None:
        """Make claimed tasks RUNNING in the record and hand them to the loop."""
        failures = 0
        while not self._draining:
            try:
                leases = self._start_fresh(leases)
                if not leases:
                    return
                with writing(self._runtime.engine, relaxed=True) as connection:
                    admissions = admit_claims(
                        connection,
                        leases,
                        now=utc_now(),
                        started_message=self._settings.activity_message_started,
                        max_crashes=self._settings.max_crashes,
                        suspect_running=bool(self._suspects),
                    )
            except (UnavailableError, SchemaError) as error:
                failures += 1
                if failures == 1:
                    log.error("%s %d claimed task(s) wait until it is back.", error, len(leases))
                time.sleep(backoff(failures, maximum=2.0))
            except Exception as error:
                # Something in one row: the others must not be harmed.
                self._start_one_by_one(leases, error)
                return
            else:
                self._admit(admissions)
                return
        self._release(leases)

    def _start_fresh(self, leases: list[Lease]) -> list[Lease]:
        """Start those about which there is nothing to decide, where that is quicker; returns the others."""
        message = self._settings.activity_message_started
        started = start_fresh_tasks(self._runtime.engine, leases, now=utc_now(), started_message=message)
        if not started:
            return leases
        self._admit(Admissions(started))
        fresh = {admitted.lease for admitted in started}
        return [lease for lease in leases if lease not in fresh]

    def _start_one_by_one(self, leases: list[Lease], error: Exception) -> None:
        if len(leases) > 1:
            for lease in leases:
                self._start([lease])
            return
        # The reconciler brings it back if the record has it as a task, under the epoch that the record knows.
        log.error("Task %s could not be started: %s", leases[0].agent_id, type(error).__name__)
        self._forget(leases[0])
        try:
            self._backend.finish(self._queue, leases)
        except UnavailableError as unavailable:
            log.warning("%s Its lease runs out by itself.", unavailable)

    def _admit(self, admissions: Admissions) -> None:
        most = self._settings.max_crashes
        for admitted in admissions.started:
            self._writer.hold(admitted.lease)
            if admitted.crashes.is_suspect(most):
                self._suspects.add(admitted.lease.agent_id)
            if admitted.crashes.total:
                self._crashed[admitted.lease.agent_id] = admitted.lease.epoch
        if admissions.started:
            self._loop.call_soon_threadsafe(self._begin, admissions.started)
            self._live.notify_log_changed([admitted.lease.agent_id for admitted in admissions.started])
        self._held = [*self._held, *admissions.held]
        over = [*admissions.ended, *(lease for lease, _ in admissions.poisoned)]
        for lease in (*over, *admissions.refused):
            self._forget(lease)
        if over:
            try:
                self._backend.finish(self._queue, over)
                self._backend.notify_done(self._queue, [lease.agent_id for lease in over])
            except UnavailableError as error:
                # Not admitted again because of it: the others of this batch run by now.
                log.warning("%s The reconciler acknowledges %d task(s) that had ended.", error, len(over))

    def _release(self, leases: Sequence[Lease]) -> None:
        """Give back tasks that were claimed and not started."""
        for lease in leases:
            self._forget(lease)
            try:
                self._backend.release(self._queue, lease)
            except UnavailableError as error:
                log.warning("%s A claimed task is free again when its lease runs out.", error)

    # ---- execute (on the loop) ---------------------------------------------------------------------------

    def _begin(self, admitted: Sequence[Admitted]) -> None:
        for one in admitted:
            task = self._loop.create_task(self._execute(one), name=f"agentexec:{one.task_name}")
            self._running[one.lease.agent_id] = task

    async def _execute(self, admitted: Admitted) -> None:
        agent_id = admitted.lease.agent_id
        try:
            ending = await execute_attempt(self._registry, admitted, self._handler_threads)
        except asyncio.CancelledError:
            ending = self._canceled(admitted)
        except Exception as error:
            # Not of the handler, whose errors are endings: without one the task would stay RUNNING for ever.
            log.exception("Task %s could not be run.", agent_id)
            ending = permanent_failure(admitted, f"the task could not be run: {type(error).__name__}")
        self._running.pop(agent_id, None)
        if agent_id in self._aborted:
            # The record has its end already, or another worker's epoch: nothing of ours may follow.
            self._aborted.discard(agent_id)
            self._forget(admitted.lease)
        else:
            self._writer.end(ending)
            self._free_slot(agent_id)

    def _canceled(self, admitted: Admitted) -> Ending:
        if self._draining:
            return Ending(admitted.lease, Status.QUEUED, STOPPING, counts_as_attempt=False)
        text = "The handler canceled itself."
        message = self._settings.activity_message_error.format(error=text)
        return Ending(admitted.lease, Status.ERROR, message, error=text)

    def _abort(self, agent_id: UUID) -> None:
        """Stop a task that was canceled, or taken over by another worker."""
        task = self._running.get(agent_id)
        if task is not None and agent_id not in self._aborted:
            self._aborted.add(agent_id)
            task.cancel()

    def _on_lease_lost(self, agent_id: UUID) -> None:
        """Called by the heartbeat's thread for a lease that is lost."""
        log.warning("Task %s is no longer this worker's: it was canceled or taken over.", agent_id)
        self._loop.call_soon_threadsafe(self._abort, agent_id)

    def _free_slot(self, agent_id: UUID) -> None:
        self._crashed.pop(agent_id, None)
        self._slots.end_task(agent_id)

    def _on_slot_released(self, agent_id: UUID) -> None:
        """A task that waits for others is no suspect: it has come so far, and those may be held back because of it."""
        epoch = self._crashed.pop(agent_id, None)
        if epoch is None:
            self._absolve(agent_id)
        else:
            self._runtime.submit(lambda: self._clear(Lease(agent_id, epoch)))

    def _clear(self, lease: Lease) -> None:
        """Only once the record has it does the next suspect start: it may take this process down at once."""
        failures = 0
        while lease.agent_id in self._running:
            try:
                with writing(self._runtime.engine, relaxed=True) as connection:
                    clear_crashes(connection, lease)
                break
            except UnavailableError as error:
                failures += 1
                if failures == 1:
                    log.warning("%s Task %s stays under suspicion until then.", error, lease.agent_id)
                time.sleep(backoff(failures, maximum=2.0))
        self._absolve(lease.agent_id)

    def _absolve(self, agent_id: UUID) -> None:
        self._suspects.discard(agent_id)
        self._suspects_changed.set()
        self._slots.notify()

    def _forget(self, lease: Lease) -> None:
        """End the care for a task: its lease is not renewed, its slot is free."""
        self._leases.pop(lease.agent_id, None)
        self._free_slot(lease.agent_id)
        self._absolve(lease.agent_id)

    # ---- finish (in the writer's thread) -----------------------------------------------------------------

    def _acknowledge(self, connection: Connection, endings: Sequence[Ending]) -> None:
        """Within the transaction that ended them, where the queue lives in the same database."""
        over = [ending.lease for ending in endings if ending.status.final]
        if over:
            self._backend.finish(self._queue, over, transaction=connection)

    def _settle(self, written: Sequence[Ending], refused: Sequence[Ending]) -> None:
        """After the commit: acknowledge, release, tell."""
        for ending in (*written, *refused):
            self._leases.pop(ending.lease.agent_id, None)
            if ending.lease.agent_id in self._suspects:
                self._absolve(ending.lease.agent_id)
        for ending in refused:
            log.warning(
                "The %s of task %s was refused: it was canceled or taken over.",
                ending.status,
                ending.lease.agent_id,
            )
        over = [ending.lease for ending in written if ending.status.final]
        if over:
            if not self._backend.transactional:
                self._backend.finish(self._queue, over)
            self._backend.notify_done(self._queue, [lease.agent_id for lease in over])
        for ending in written:
            if not ending.status.final:
                self._backend.release(self._queue, ending.lease, delay=ending.delay)
        waiting = {ending.lease.agent_id: ending.awaited_kinds for ending in written if ending.awaited_kinds}
        # Who answered before the release found nothing to hasten.
        if waiting and (come := ready_tasks(self._runtime.engine, waiting)):
            self._backend.make_ready(self._queue, come)

    # ---- stop --------------------------------------------------------------------------------------------

    async def _finish_running(self) -> None:
        await asyncio.to_thread(self._idle.wait, IDLE_WAIT)
        if self._running:
            log.info(
                "Draining: %d running task(s) get %g s.",
                len(self._running),
                self._settings.graceful_shutdown_timeout,
            )
        deadline = self._loop.time() + self._settings.graceful_shutdown_timeout
        hurry = asyncio.ensure_future(self._hurry.wait())
        while self._running and not hurry.done() and self._loop.time() < deadline:
            for agent_id in self._slots.requeueable_tasks:
                if agent_id in self._running:
                    self._running[agent_id].cancel()
            await asyncio.wait(
                [*self._running.values(), hurry],
                timeout=min(LEAVE_SECONDS, deadline - self._loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
        hurry.cancel()
        left = list(self._running.items())
        for _, task in left:
            task.cancel()
        if left:
            log.info("Handing %d unfinished task(s) back to the queue.", len(left))
            await asyncio.wait([task for _, task in left], timeout=GRACE_AFTER_CANCEL)
        # What did not react (a plain function in a thread) is handed back all the same; the process ends now.
        for agent_id in list(self._running):
            epoch = self._leases.get(agent_id)
            if epoch is not None:
                self._writer.end(
                    Ending(Lease(agent_id, epoch), Status.QUEUED, STOPPING, counts_as_attempt=False)
                )

    def _close(self) -> None:
        self._release(self._held)
        if not self._writer.close(GRACE_AFTER_CANCEL):
            log.error("The database cannot be reached; unwritten results are run again when it is back.")
        self._heartbeat.stop()
        self._presence.stop()
