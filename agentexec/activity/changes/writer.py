"""The writer of a worker process: takes reports and endings at once, writes them in batches, in order."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import Connection, Engine

from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.postgres_fast_path import can_complete_batch, complete_batch
from agentexec.activity.changes.transitions import Progress, record_changes
from agentexec.activity.live.publisher import EventPublisher
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.errors import UnavailableError
from agentexec.outage import backoff
from agentexec.redaction import redact
from agentexec.task import Lease, Status

log = logging.getLogger("agentexec.writer")

GATHER_SECONDS = 0.02
"""How long reports wait for company. An ending never waits: somebody may be waiting for the result."""

MAX_BATCH = 500
MAX_PENDING_REPORTS = 50_000
"""Reports that are kept while the database is away; above it the oldest go, endings never do."""


class Writer:
    """Owns a thread that turns reports and endings into rows.

    `acknowledge`, if any, is called in that thread within each transaction, with the endings that are written by it:
    a queue in the same database forgets them in one commit. `settle` is called after each commit with the endings that
    were written and those that were refused because another worker holds the task. `live` hears of what was written,
    and sends a task's events before its ending.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        result_ttl: int,
        acknowledge: Callable[[Connection, Sequence[Ending]], None] | None,
        settle: Callable[[Sequence[Ending], Sequence[Ending]], None],
        live: EventPublisher | None = None,
    ) -> None:
        self._engine = engine
        self._acknowledge = acknowledge
        self._result_ttl = result_ttl
        self._settle = settle
        self._live = live
        self._progress: deque[Progress] = deque()
        self._endings: deque[Ending] = deque()
        self._held: dict[UUID, int] = {}
        self._changed = threading.Condition()
        self._busy = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="agentexec-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hold(self, lease: Lease) -> None:
        """Note that this process runs a task, so that reports on it are fenced by its epoch."""
        self._held[lease.agent_id] = lease.epoch

    def holds(self, agent_id: UUID) -> bool:
        """True while this process runs the task."""
        return agent_id in self._held

    def report_progress(
        self, agent_id: UUID, epoch: int | None, message: str, percentage: int | None
    ) -> None:
        """Take a report; returns at once. `epoch` None: that of the running task."""
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
        """Take the end of an attempt; returns at once. Reports of that task made before are written first."""
        with self._changed:
            self._held.pop(ending.lease.agent_id, None)
            self._endings.append(ending)
            if len(self._endings) == 1:
                self._changed.notify_all()

    @property
    def backlog(self) -> int:
        """Endings that are not written yet."""
        return len(self._endings)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was taken is written, at most `timeout` seconds; False if it took longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._progress or self._endings or self._busy), timeout
            )

    def close(self, timeout: float) -> bool:
        """Write what is left, at most `timeout` seconds, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._wait():
            with self._changed:
                self._busy = True
                progress = [self._progress.popleft() for _ in range(min(len(self._progress), MAX_BATCH))]
                # Endings wait until every earlier report is in a batch before or beside theirs.
                most = 0 if self._progress else MAX_BATCH
                endings = [self._endings.popleft() for _ in range(min(len(self._endings), most))]
            self._write_until_done(progress, endings)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _wait(self) -> bool:
        """Wait for work; False when there is none and the writer is closing."""
        with self._changed:
            while not (self._progress or self._endings):
                if self._closing:
                    return False
                self._changed.wait()
            if not self._endings and not self._closing:
                self._changed.wait_for(lambda: bool(self._endings) or self._closing, GATHER_SECONDS)
        return True

    def _write_until_done(self, progress: list[Progress], endings: list[Ending]) -> None:
        failures = 0
        while True:
            try:
                self._write(progress, endings)
            except UnavailableError as error:
                failures += 1
                if failures == 1:
                    log.error("%s Results wait until it is back.", error)
                time.sleep(backoff(failures) * random.uniform(0.8, 1.0))  # noqa: S311 - spreads load, no secret
            except Exception as error:
                # Whatever it is, this thread must live: it is the only one that can end tasks.
                self._write_one_by_one(progress, endings, error)
                return
            else:
                if failures:
                    log.info("The database is back; results are written.")
                return

    def _write_one_by_one(self, progress: list[Progress], endings: list[Ending], error: Exception) -> None:
        """Something in a batch cannot be stored: find it, so that the rest of the batch is not harmed."""
        if len(progress) + len(endings) > 1:
            for report in progress:
                self._write_until_done([report], [])
            for ending in endings:
                self._write_until_done([], [ending])
            return
        whole = f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"
        reason = redact(whole.splitlines()[0], CONF.secrets)
        log.error("A row could not be stored and is left out: %s", reason)
        if endings and endings[0].status is not Status.ERROR:
            text = f"The result could not be stored: {type(error).__name__}."
            self._write_until_done([], [Ending(endings[0].lease, Status.ERROR, text, error=text)])

    def _record(self, progress: list[Progress], endings: list[Ending]) -> set[Lease]:
        """Returns the leases under which nothing may be written any more."""
        when = {"now": utc_now(), "result_ttl": self._result_ttl}
        if not progress and self._acknowledge is None and can_complete_batch(self._engine, endings):
            return set(complete_batch(self._engine, endings, **when))
        with writing(self._engine, relaxed=not endings) as connection:
            recorded = record_changes(connection, progress, endings, **when, acknowledge=self._acknowledge)
        return set(recorded.refused)

    def _write(self, progress: list[Progress], endings: list[Ending]) -> None:
        if self._live is not None:
            self._live.flush([ending.lease.agent_id for ending in endings])
        refused = self._record(progress, endings)
        written = [ending for ending in endings if ending.lease not in refused]
        if self._live is not None:
            back = [ending.lease.agent_id for ending in written if not ending.status.final]
            self._live.notify_log_changed({*(report.agent_id for report in progress), *back})
        if not endings:
            return
        try:
            self._settle(written, [ending for ending in endings if ending.lease in refused])
        except UnavailableError as error:
            # The record is right already; the leases run out and the reconciler acknowledges the tasks.
            log.warning("%s The reconciler will acknowledge %d finished task(s).", error, len(endings))
