"""The writer of a worker process: takes reports and endings without waiting, and writes them in batches, in order."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from uuid import UUID

from sqlalchemy import Connection

from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.progress import Progress
from agentexec.activity.changes.store import Acknowledge, RecordStore, complete_alike, refused_leases
from agentexec.activity.live.publisher import EventPublisher
from agentexec.config import CONF
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.clock import utc_now
from agentexec.errors import UnavailableError
from agentexec.outage import Outage
from agentexec.redaction import redact
from agentexec.state.capabilities import JoinFailed
from agentexec.task import Lease, Status

log = logging.getLogger("agentexec.writer")

GATHER_SECONDS = 0.02
"""Seconds that reports wait for more of them. An ending never waits, because somebody may be waiting for the result."""

MAX_PENDING_REPORTS = 50_000
"""Reports kept while the database is away. Beyond it the oldest are dropped; endings never are."""


BUSY_SECONDS = 0.2
"""Seconds between two tries to write what is about tasks that another process has locked."""

MAX_LENT_CHARS = 200_000
"""Characters of results that a claim takes along at most: no claim waits for long ones to be written."""


class Writer:
    """Owner of a thread that turns reports and endings into rows.

    Any thread may call `hold`, `report_progress` and `end`; only the writer's thread uses the database, and the thread that
    claims: from `await_claim` on, endings wait for its next transaction.

    `acknowledge`, if any, is called in that thread within each transaction, with the endings that the transaction writes:
    a queue in the same database then forgets their tasks in the same commit; `queue_table` as for `RecordStore.record`. `settle` is called after each commit, with
    the endings that were written and those that were refused because another worker has the task. `abandon` is called
    for a task whose ending cannot be written at all: its lease must not be renewed, or it would stay RUNNING for as long
    as this process lives. What is about tasks that another process has locked, which may be frozen, is set aside while the
    rest is written. `live` is told what was written, and sends a task's events before its ending is written.
    """

    def __init__(
        self,
        store: RecordStore,
        *,
        result_ttl: int,
        acknowledge: Acknowledge | None,
        queue_table: str | None = None,
        settle: Callable[[Sequence[Ending], Sequence[Ending]], None],
        abandon: Callable[[UUID], object],
        live: EventPublisher | None = None,
    ) -> None:
        self._store = store
        self._acknowledge = acknowledge
        self._queue_table = queue_table
        self._result_ttl = result_ttl
        self._settle = settle
        self._abandon = abandon
        self._live = live
        self._progress: deque[Progress] = deque()
        self._endings: deque[Ending] = deque()
        self._set_aside: tuple[list[Progress], list[Ending]] = ([], [])
        self._skips_busy = False
        self._wake_claimer: Callable[[], object] | None = None
        self._keeps_endings = False
        """True if a claim has left endings to the writer's thread, which has not taken them yet."""
        self._writes_reports = False
        self._lent: list[Ending] = []
        """Endings that a claim takes along."""
        self._lent_written: list[Ending] | None = None
        self._held: dict[UUID, int] = {}
        # `end` holds the lock, not the condition: entering a condition is Python code.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._busy = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="agentexec-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hold(self, leases: Iterable[Lease]) -> None:
        """Note that this process runs some tasks, so that reports on them are fenced by their epochs."""
        self._held.update(leases)

    def holds(self, agent_id: UUID) -> bool:
        """Return True while this process runs the task."""
        return agent_id in self._held

    def report_progress(
        self, agent_id: UUID, epoch: int | None, message: str, percentage: int | None
    ) -> None:
        """Take a report, without waiting. `epoch` None: that of the running task."""
        if epoch is None:
            epoch = self._held.get(agent_id)
        report = Progress(agent_id, epoch, message, percentage, utc_now())
        with self._changed:
            if len(self._progress) >= MAX_PENDING_REPORTS:
                self._progress.popleft()
            self._progress.append(report)
            if len(self._progress) == 1:
                self._changed.notify_all()

    def end(self, ending: Ending) -> None:
        """Take the end of an attempt, without waiting. Earlier reports on that task are written first."""
        with self._lock:
            self._held.pop(ending.lease.agent_id, None)
            self._endings.append(ending)
            if len(self._endings) == 1:
                wake = self._wake_claimer or self._changed.notify_all
                wake()

    @property
    def backlog(self) -> int:
        """Number of endings that are not written yet."""
        return len(self._endings) + len(self._set_aside[1]) + len(self._lent)

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until everything taken so far is written; return False if it took longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._has_work or self._endings or self._busy or self._lent), timeout
            )

    def close(self, timeout: float) -> bool:
        """Write what is left and end the thread, within `timeout` seconds; return False if it took longer."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ---- endings that a claim takes along: the thread that claims calls these ----

    def await_claim(self, wake: Callable[[], object]) -> None:
        """Have endings wait for a transaction that claims; `wake` is called, in any thread, when the first one does."""
        with self._lock:
            self._wake_claimer = wake

    @property
    def lends(self) -> bool:
        """True if endings wait for a transaction that claims."""
        return (
            bool(self._endings or self._lent) and self._wake_claimer is not None and not self._keeps_endings
        )

    def write_within(self, connection: Connection) -> None:
        """Write endings in a transaction that has just begun, if they are quickly written. Raises JoinFailed."""
        endings = self._lend()
        if not endings:
            if self.lends:
                self.stop_lending()  # they must not wait for a claim that finds no task
            return
        now = utc_now()
        try:
            self._lent_written = self._store.complete_within(
                connection, endings, now, self._result_ttl, self._acknowledge
            )
        except Exception as error:
            # Caused by a single ending: the writer's thread finds it.
            self.stop_lending()
            raise JoinFailed from error
        if self._lent_written is None:
            self.stop_lending()

    def settle_lent(self) -> None:
        """Settle the endings that were written in a transaction, after its commit."""
        written, lent = self._lent_written, self._lent
        if written is None:
            return
        lost = {*refused_leases(lent, written)}
        self._lent, self._lent_written = [], None
        self._settle_all(written, [ending for ending in lent if ending.lease in lost])
        with self._changed:
            self._changed.notify_all()

    def stop_lending(self) -> None:
        """Leave endings to the writer's thread again, also those of a transaction that was rolled back."""
        with self._changed:
            self._endings.extendleft(reversed(self._lent))
            self._lent, self._lent_written = [], None
            self._wake_claimer = None
            self._keeps_endings = bool(self._endings)
            if self._endings:
                self._changed.notify_all()

    def _lend(self) -> list[Ending]:
        """Take out the endings for a transaction; none if reports come before them, or if they take long to write."""
        with self._lock:
            if self._lent or not self.lends:
                return self._lent  # of the same transaction, which is tried again
            endings = list(islice(self._endings, CHUNK_SIZE))
            if self._progress or self._writes_reports or any(self._set_aside) or not self._are_quick(endings):
                return []
            for _ in endings:
                self._endings.popleft()
            self._lent = endings
            return endings

    def _are_quick(self, endings: Sequence[Ending]) -> bool:
        chars = sum(len(ending.result or "") for ending in endings)
        if chars > MAX_LENT_CHARS or not complete_alike(endings):
            return False
        return self._live is None or self._live.flush([ending.lease.agent_id for ending in endings], 0)

    # ---- the writer's thread ----

    @property
    def _has_work(self) -> bool:
        is_lending = self._wake_claimer is not None and not (self._keeps_endings or self._closing)
        return bool(self._progress or any(self._set_aside) or (self._endings and not is_lending))

    def _run(self) -> None:
        while self._wait():
            with self._changed:
                self._busy = True
                (progress, endings), self._set_aside = self._set_aside, ([], [])
                progress += [self._progress.popleft() for _ in range(min(len(self._progress), CHUNK_SIZE))]
                # Endings wait until every earlier report is in this batch or an earlier one.
                limit = 0 if self._progress else CHUNK_SIZE
                endings += [self._endings.popleft() for _ in range(min(len(self._endings), limit))]
                self._writes_reports = bool(progress)
                self._keeps_endings = self._keeps_endings and bool(self._endings)
            self._write_until_done(progress, endings)
            with self._changed:
                self._busy = self._writes_reports = False
                self._changed.notify_all()

    def _wait(self) -> bool:
        """Wait for work; return False when there is none and the writer is closing."""
        with self._changed:
            while not self._has_work:
                if self._closing:
                    return False
                self._changed.wait()
            if not self._endings and not self._closing:
                seconds = BUSY_SECONDS if any(self._set_aside) else GATHER_SECONDS
                self._changed.wait_for(lambda: bool(self._endings) or self._closing, seconds)
        return True

    def _write_until_done(self, progress: list[Progress], endings: list[Ending]) -> None:
        outage = Outage(log, recovered="The database is back; results are written.", level=logging.ERROR)
        while True:
            try:
                self._write(progress, endings)
            except UnavailableError as error:
                self._skips_busy |= error.contended
                time.sleep(outage.failed("%s Results wait until it is back.", error))
            except Exception as error:
                # This thread must survive any error: nothing else in the process can end tasks.
                self._write_one_by_one(progress, endings, error)
                return
            else:
                outage.recovered()
                return

    def _write_one_by_one(self, progress: list[Progress], endings: list[Ending], error: Exception) -> None:
        """Find what in a batch cannot be stored, so that everything else in the batch is."""
        if len(progress) + len(endings) > 1:
            for report in progress:
                self._write_until_done([report], [])
            for ending in endings:
                self._write_until_done([], [ending])
            return
        text = f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"
        text = redact(text.splitlines()[0], CONF.secrets)
        if not endings:
            log.error("A report could not be stored and is left out: %s", text)
            return
        lease, status = endings[0].lease, endings[0].status
        if status is Status.ERROR:
            log.error(
                "The ending of task %s could not be stored: %s. The task runs again when its lease has expired.",
                lease.agent_id,
                text,
            )
            self._abandon(lease.agent_id)
            return
        log.error("The ending of task %s could not be stored, so it ends in ERROR: %s", lease.agent_id, text)
        reason = f"The result could not be stored: {type(error).__name__}."
        self._write_until_done([], [Ending(lease, Status.ERROR, reason, error=reason)])

    def _write(self, progress: list[Progress], endings: list[Ending]) -> None:
        if self._live is not None:
            self._live.flush([ending.lease.agent_id for ending in endings])
        recorded = self._store.record(
            progress,
            endings,
            now=utc_now(),
            result_ttl=self._result_ttl,
            relaxed=not endings,
            acknowledge=self._acknowledge,
            queue_table=self._queue_table,
            skips_busy=self._skips_busy,
        )
        self._skips_busy = bool(recorded.busy)
        if recorded.busy:
            progress, endings = self._without_busy(progress, endings, recorded.busy)
        written, refused = endings, []
        if lost := set(recorded.refused):
            written = [ending for ending in endings if ending.lease not in lost]
            refused = [ending for ending in endings if ending.lease in lost]
        self._notify_live(progress, written)
        if endings:
            self._settle_all(written, refused)

    def _settle_all(self, written: Sequence[Ending], refused: Sequence[Ending]) -> None:
        try:
            self._settle(written, refused)
        except Exception:
            # The record is right already, and must not be written again.
            log.exception("The reconciler will acknowledge %d finished task(s).", len(written) + len(refused))

    def _without_busy(
        self, progress: list[Progress], endings: list[Ending], busy: frozenset[UUID]
    ) -> tuple[list[Progress], list[Ending]]:
        """Set aside what is about tasks that another process has locked, in order, and return the rest."""
        reports, ends = self._set_aside
        reports += [report for report in progress if report.agent_id in busy]
        del reports[:-MAX_PENDING_REPORTS]
        ends += [ending for ending in endings if ending.lease.agent_id in busy]
        return (
            [report for report in progress if report.agent_id not in busy],
            [ending for ending in endings if ending.lease.agent_id not in busy],
        )

    def _notify_live(self, progress: Sequence[Progress], written: Sequence[Ending]) -> None:
        """Tell the followers of continuing tasks about their new log lines."""
        if self._live is not None:
            requeued = [ending.lease.agent_id for ending in written if not ending.status.final]
            self._live.notify_log_changed({*(report.agent_id for report in progress), *requeued})
