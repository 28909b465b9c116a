"""Host watch: gives back the tasks of supervisors that died with their workers, long before the leases expire.

A worker process that dies is reported by its supervisor within milliseconds. A supervisor that dies with its workers is
noticed by others: immediately on the same machine, whose processes can be looked up, and after `AGENTEXEC_HOST_TIMEOUT`
elsewhere. The maintenance process of a host holds a leadership that only this host wants, and renews it: no handler runs
there that could stall it. A host whose leadership is free and whose workers have stopped reporting is dead. How long it
may be silent is its own setting, which its name tells: the hosts of a queue may have different ones. Each
maintenance process looks, so it does not matter who leads the queue, and which of them acts: the epochs refuse what a
host writes that was alive after all.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, delete, or_, select

from agentexec.activity.models import WorkerProcess, queues_of
from agentexec.config import Settings
from agentexec.db.columns import text_in
from agentexec.db.recurring import Recurring
from agentexec.db.transactions import writing
from agentexec.outage import Outage, repeat
from agentexec.runtime import Runtime
from agentexec.worker.machine import Host, is_gone

log = logging.getLogger("agentexec.maintenance")

PAUSE_PART, SILENCE_PART = 0.2, 0.6
"""Parts of the timeout: between two looks, and until a host counts as silent. What remains is for looks that are late."""

WORKER: Any = WorkerProcess.__table__


class _Worker(NamedTuple):
    """Worker process as it has reported itself."""

    worker_id: str
    pid: int
    seen_at: datetime
    queue: str
    queues: str | None


class _Report(NamedTuple):
    """The latest report of a worker process, and the monotonic time at which it was first seen."""

    at: datetime
    since: float


class HostWatch:
    """Signs of life of one host, and the watch over the other hosts of its queue.

    Threads: `start` runs a thread that does the work, so that a long turn of the reconciler does not delay a sign of life.

    Args:
        process_id: Name of the maintenance process.
        recover: Gives back the tasks of a worker process, by its name and the end of the sentence "The worker process …".
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        process_id: str,
        recover: Callable[[str, str, Sequence[str]], int],
    ) -> None:
        self._runtime = runtime
        self._workers = Recurring(runtime.engine, _workers_query(runtime.engine.dialect.name))
        self._queues = {queue.name for queue in settings.served_queues}
        self._recover = recover
        self._longest_pause = self._pause = settings.host_timeout * PAUSE_PART
        self._host = Host.of(process_id)
        self._reports: dict[str, _Report] = {}
        self._last_look = -math.inf
        self._declared_dead = False
        self._outage = Outage(log)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-host-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and leave no trace of this host, which stops in order. Raises UnavailableError."""
        self._stop.set()
        self._thread.join(self._longest_pause)
        if self._host is not None:
            self._runtime.backend.release_leadership(_role(self._host), self._host.name)

    def look(self, clock: float) -> None:
        """Give a sign of life and look at the others; `clock` is monotonic. Raises UnavailableError."""
        if self._host is None:
            return
        gap, self._last_look = clock - self._last_look, clock
        self._give_sign(self._host)
        self._look_at_others(self._host, clock, gap)

    def _run(self) -> None:
        def turn() -> float:
            self.look(time.monotonic())
            return self._pause

        repeat(
            self._stop,
            turn,
            self._outage,
            away="%s The other hosts are looked at when it is back.",
            failed="Cannot look at the other hosts; trying again.",
            first=self._pause,
        )

    def _give_sign(self, host: Host) -> None:
        is_held = self._runtime.backend.acquire_leadership(_role(host), host.name, _silence(host))
        if not is_held and not self._declared_dead:
            log.warning(
                "Another host has found this one dead, after %g s without a sign of life, and has given back its tasks.",
                host.timeout,
            )
        self._declared_dead = not is_held

    def _look_at_others(self, host: Host, clock: float, gap: float) -> None:
        before, self._reports = self._reports, {}
        dead: dict[Host, str] = {}
        pause = self._longest_pause
        for other, row in self._workers_of_others(host):
            pause_for_other = min(self._longest_pause, other.timeout * PAUSE_PART)
            pause = min(pause, pause_for_other)
            # After a longer gap this process does not know who was silent: the database may have been away.
            last = before.get(row.worker_id) if gap <= 2 * pause_for_other else None
            report = last if last is not None and last.at == row.seen_at else _Report(row.seen_at, clock)
            self._reports[row.worker_id] = report
            if _died_here(host, other, row.pid):
                self._give_back(other, row, "died together with its supervisor")
                dead[other] = other.name
            elif clock - report.since >= _silence(other) and self._take(host, other):
                self._give_back(other, row, f"has not answered for {other.timeout:g} s, nor its host")
                dead[other] = host.name
        for other, holder in dead.items():
            self._runtime.backend.release_leadership(_role(other), holder)
        # A host with a shorter timeout is looked at as often as it looks itself.
        self._pause = pause

    def _workers_of_others(self, host: Host) -> list[tuple[Host, _Worker]]:
        rows = map(_Worker._make, self._workers.read({"names": sorted(self._queues)}))
        found = ((Host.of(row.worker_id), row) for row in rows if self._queues & {*queues_of(row)})
        return [(other, row) for other, row in found if other is not None and other != host]

    def _take(self, host: Host, other: Host) -> bool:
        """Return True if the other host does not hold its leadership any more, which this process then holds.

        For as long as the host itself would: a leadership of another length may count as forged, and hold nobody off.
        """
        return self._runtime.backend.acquire_leadership(_role(other), host.name, _silence(other))

    def _give_back(self, other: Host, row: _Worker, reason: str) -> None:
        worker_id = row.worker_id
        # Of all its queues: other hosts that serve one of them do not see it any more.
        number = self._recover(worker_id, reason, queues_of(row))
        log.log(
            logging.WARNING if number else logging.INFO,
            "Worker process %s of host %s is gone; it had %d task(s).",
            worker_id,
            other.name,
            number,
        )
        with writing(self._runtime.engine) as connection:
            connection.execute(delete(WORKER).where(WORKER.c.worker_id == worker_id))
        self._reports.pop(worker_id, None)


def _workers_query(dialect: str) -> Select[Any]:
    """Return the query of the workers that may serve one of the queues `names`."""
    columns = [WORKER.c[name] for name in _Worker._fields]
    serves = or_(text_in(WORKER.c.queue, "names", dialect), WORKER.c.queues.is_not(None))
    return select(*columns).where(serves)


def _role(host: Host) -> str:
    return f"host:{host.name}"


def _silence(host: Host) -> float:
    """Return the seconds after which a host counts as silent, and for which it holds its leadership."""
    return host.timeout * SILENCE_PART


def _died_here(host: Host, other: Host, pid: int) -> bool:
    """Return True if a worker process of this machine is gone, and its supervisor, who would have told."""
    if not host.machine or other.machine != host.machine:
        return False
    # A supervisor with the pid of this one is gone, of course.
    return (other.supervisor_pid == host.supervisor_pid or is_gone(other.supervisor_pid)) and is_gone(pid)
