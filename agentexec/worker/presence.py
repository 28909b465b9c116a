"""Presence: worker processes report to the record that they serve a queue, how busy they are, and how much they use."""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from agentexec.activity.changes.served_tasks import REPORT_SECONDS as SERVED_REPORT_SECONDS
from agentexec.activity.changes.served_tasks import report_served
from agentexec.activity.changes.versions import (
    NO_VERSIONS,
    Versions,
    make_report,
    outdated_names,
)
from agentexec.activity.models import MAX_LABEL, MAX_NAME, WorkerProcess
from agentexec.activity.queries.overview import LOST_SECONDS, REPORT_SECONDS
from agentexec.activity.version_reports import VersionReport, dump_report
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.recurring import Recurring, upsert
from agentexec.db.transactions import writing
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime
from agentexec.worker.host_watch import SILENCE_PART
from agentexec.worker.lease_clock import Instant, present, seconds_between

log = logging.getLogger("agentexec.presence")

REPORTS_PER_TIMEOUT = 4
"""Reports at least in the time after which a host that is not heard of is taken for dead."""

LONGEST_GAP = SILENCE_PART * 2 / 3
"""Part of that time between two reports up to which nobody can have counted the host as silent, with some to spare."""

WORKER: Any = WorkerProcess.__table__

CHANGING = ("running", "draining", "cpu_percent", "rss_bytes", "seen_at")
"""Columns that each report changes."""


class Presence:
    """The report of one worker process: refreshed every few seconds, and removed when the process stops in order.

    Threads: its own thread does the work; any other may call `start`, `stop` and `was_seen_since`.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        worker_id: str,
        state: Callable[[], tuple[int, bool]],
        *,
        task_names: Callable[[], Collection[str]],
        versions: Versions = NO_VERSIONS,
        after_gap: Callable[[], object] = lambda: None,
    ) -> None:
        """Report what `state` returns: the number of running tasks, and whether the process drains.

        `task_names` returns the names of the tasks that this process has, and `versions` are theirs. `after_gap` is called after a long gap between
        two reports, in which others may have taken its tasks; it may raise UnavailableError.
        """
        self._runtime = runtime
        self._state = state
        self._task_names = task_names
        self._versions = versions
        self._version_report: VersionReport | None = None
        self._after_gap = after_gap
        self._next_served_report = 0.0
        self._started_at = utc_now()
        self._key = worker_id[:MAX_LABEL]
        self._queues = [queue.name for queue in settings.served_queues]
        self._facts: dict[str, Any] = {
            "queue": self._queues[0],
            "queues": json.dumps(self._queues) if len(self._queues) > 1 else None,
            "host": socket.gethostname()[:MAX_NAME],
            "pid": os.getpid(),
            "concurrency": settings.worker_concurrency,
        }
        self._write_report = Recurring(
            runtime.engine, upsert(WORKER, "worker_id", CHANGING, runtime.engine.dialect)
        ).write
        self._used = (time.monotonic(), time.process_time())
        self._interval = min(REPORT_SECONDS, settings.host_timeout / REPORTS_PER_TIMEOUT)
        self._longest_gap = settings.host_timeout * LONGEST_GAP
        self._seen_from = Instant(0.0, 0.0)  # before the first report nobody knows this process
        self._seen_until: Instant | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-presence", daemon=True)

    def start(self) -> None:
        """Start the thread, which reports immediately."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and remove the report."""
        self._stop.set()
        self._thread.join(REPORT_SECONDS)
        try:
            with writing(self._runtime.engine, relaxed=True) as connection:
                connection.execute(delete(WORKER).where(WORKER.c.worker_id == self._key))
        except UnavailableError as error:
            log.debug("%s The report of this process remains until it expires.", error)

    def was_seen_since(self, moment: Instant, now: Instant | None = None) -> bool:
        """Return True if this process has reported itself without a long gap from a moment until now.

        Otherwise others may have taken its host for dead. `now`: the present moment, if the caller knows it.
        """
        until, longest = self._seen_until, self._longest_gap
        if until is None:
            return True
        now = now or present()
        # As `seconds_between`, without its call: each handler's start asks.
        is_recent = now.running - until.running < longest and now.wall - until.wall < longest
        return is_recent and moment >= self._seen_from

    def _run(self) -> None:
        while True:
            try:
                self._report()
            except UnavailableError as error:
                log.debug("%s This process will be reported later.", error)
            except Exception:
                log.exception("Cannot report this process; trying again.")
            if self._stop.wait(self._interval):
                return

    def _report(self) -> None:
        running, draining = self._state()
        self._report_versions()
        now, since = utc_now(), present()
        values = {
            "worker_id": self._key,
            "started_at": self._started_at,
            "running": running,
            "draining": draining,
            "cpu_percent": self._cpu_percent(),
            "rss_bytes": rss_bytes(),
            "seen_at": now,
        }
        self._write_report({**self._facts, **values})
        self._note_seen(since)
        if not draining and time.monotonic() >= self._next_served_report:
            for queue in self._queues:
                report_served(self._runtime.engine, queue, self._task_names(), now)
            self._next_served_report = time.monotonic() + SERVED_REPORT_SECONDS

    def _report_versions(self) -> None:
        """Find out since when there are workers with these versions, and which tasks a newer one begins."""
        engine, now = self._runtime.engine, utc_now()
        if self._version_report is None and "versions" not in self._facts:
            self._version_report = report = make_report(engine, self._versions, self._task_names(), now)
            self._facts["versions"] = None if report is None else dump_report(report)
        if self._version_report is not None and self._versions.is_pinned:
            seen_after = now - timedelta(seconds=LOST_SECONDS)
            self._versions.outdated = outdated_names(
                engine, self._version_report, self._key, self._queues, seen_after
            )

    def _note_seen(self, since: Instant) -> None:
        """Note a report that was made after a moment."""
        if self._seen_until is not None and seconds_between(self._seen_until, since) >= self._longest_gap:
            self._seen_from = since
            self._seen_until = since
            self._after_gap()
        self._seen_until = since

    def _cpu_percent(self) -> float:
        """Return the CPU use since the last report; 100 is one processor."""
        wall, processor = self._used
        self._used = (time.monotonic(), time.process_time())
        passed = self._used[0] - wall
        return round(100 * (self._used[1] - processor) / passed, 1) if passed > 0.01 else 0.0


def rss_bytes() -> int:
    """Return the memory that this process holds, in bytes; the most that it ever held on systems without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
