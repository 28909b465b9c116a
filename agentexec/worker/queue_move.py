"""Move of a queue from one state backend to another, while producers run.

The queue is paused, so no worker of either backend claims its tasks. The record has every task: the new index is made from
it, and an entry leaves the old one only when the new one has the task. So the move may be killed anywhere, and begun again.

Its workers are asked to leave the queue: they answer when they have read the pause, and put back the tasks that wait for
others, as these may wait for tasks that start nowhere. What dead workers ran comes back when its leases expire.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid4

from sqlalchemy import Engine, select

from agentexec.activity.models import MAX_LABEL, Activity
from agentexec.activity.queries.queues import live_workers
from agentexec.activity.receiver import new_address
from agentexec.config import Settings
from agentexec.db.chunks import chunks
from agentexec.db.transactions import reading
from agentexec.runtime import Runtime
from agentexec.state.backend import StateBackend
from agentexec.state.messages import MOVE, format_message, parse_left
from agentexec.task import Status
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.lease_recovery import LeaseRecovery

log = logging.getLogger("agentexec.reconciler")

INTERVAL = 0.5
"""Seconds between two looks at the queue."""

ASK_SECONDS = 2.0
"""Seconds between two requests to the workers of the queue to leave it."""

ANSWER_SECONDS = 30.0
"""Seconds for which a worker process that reports itself may leave out its answer: earlier releases send none."""

MARK_SECONDS = 60.0
"""Seconds for which the mark of `share_place` lasts if this process is killed before it removes it."""

QUIET_LOOKS = 2
"""Looks in a row that find nothing left to wait for: a claim may be on its way at the first one."""


class _Side(NamedTuple):
    """The record and one of the indexes, in the form in which the reconciler's parts take them."""

    engine: Engine
    backend: StateBackend


class Look(NamedTuple):
    """Result of one look at a queue that moves: further tasks that left the old index, and those that run or are about to."""

    moved: int
    running: int


class QueueMove:
    """Move of one paused queue to another state backend.

    Args:
        engine: Engine of the record.
        source: The state backend that has the queue.
        target: The state backend that gets it.
        queue: Name of the queue.
    """

    def __init__(
        self, engine: Engine, source: StateBackend, target: StateBackend, queue: str, settings: Settings
    ) -> None:
        self._engine = engine
        self._source = source
        self._target = target
        self._queue = queue
        self._leases = LeaseRecovery(cast(Runtime, _Side(engine, source)), settings, queue)
        self._old = IndexRepair(cast(Runtime, _Side(engine, source)), settings, queue)
        self._new = IndexRepair(cast(Runtime, _Side(engine, target)), settings, queue)
        self._address = new_address("-move")
        self._began = time.monotonic()
        self._next_request = 0.0
        self._gone: set[str] = set()
        """Worker processes that have left the queue."""
        self._ran: set[UUID] = set()
        self._moved: set[UUID] = set()

    def run(self, timeout: float, say: Callable[[str], object] = lambda _line: None) -> int:
        """Move all tasks, and return their number. Producers may add more all the time.

        Args:
            timeout: Longest time in seconds.
            say: Called with a line about what the move waits for, whenever that changes.

        Raises:
            TimeoutError: A task still runs. What has moved stays where it is.
            UnavailableError: A server cannot be reached.
        """
        self._began = time.monotonic()
        moved, quiet, told = 0, 0, ""
        while True:
            staying = self._ask_workers()
            look = self.look()
            moved += look.moved
            quiet = 0 if staying or look.running else quiet + 1
            if quiet == QUIET_LOOKS:
                return moved
            line = _awaited(look.running, len(staying))
            if line and line != told:
                say(line)
            told = line or told
            if time.monotonic() - self._began > timeout:
                raise TimeoutError(
                    f"Queue {self._queue} has not moved in {timeout:g} s: {line or 'it is still in use'}. It stays paused; stop "
                    "what runs, or run the command again."
                )
            self._gone.update(parse_left(self._source.receive(self._address, INTERVAL)))

    def _ask_workers(self) -> Collection[str]:
        """Ask the workers of the queue to leave it now and then, and return those that have not answered."""
        workers = live_workers(self._engine, self._queue)
        now = time.monotonic()
        if now >= self._next_request:
            # Again and again: what waits for others must have waited for some seconds.
            self._next_request = now + ASK_SECONDS
            for worker_id in workers:
                message = format_message(MOVE, f"{self._queue} {self._address}")
                self._source.send(worker_id, [message])
        staying = {*workers} - {name[:MAX_LABEL] for name in self._gone}
        if staying and now - self._began > ANSWER_SECONDS:
            log.warning(
                "%d worker process(es), such as %s, do not say that they have left queue %s; stop them before you resume it.",
                len(staying),
                min(staying),
                self._queue,
            )
            self._gone |= staying
            return ()
        return staying

    def look(self) -> Look:
        """Move the tasks that do not run. Raises UnavailableError."""
        # The old workers may all be dead: nobody else would give back what they ran, or notice that its lease is lost.
        self._old.add_running()
        self._leases.return_expired(time.monotonic())
        running = self._running_tasks()
        # Those that went back have the leases there that they had when they ran.
        self._target.remove(self._queue, sorted(self._ran - running))
        self._new.add_all()
        self._ran = running
        moved_before, claimed = len(self._moved), self._claimed_tasks()
        starting = 0
        for agent_ids in self._pages():
            leaving, kept = self._leaving(agent_ids, claimed)
            self._source.remove(self._queue, leaving)
            starting += kept
        # However long this took: it was no outage in which leases could not be renewed.
        self._leases.note_contact(time.monotonic())
        return Look(len(self._moved) - moved_before, starting + len(self._running_tasks()))

    def _pages(self) -> list[list[UUID]]:
        # All pages first: removals must not move the cursor.
        pages, cursor = [], ""
        while True:
            agent_ids, cursor = self._source.list_tasks(self._queue, cursor)
            pages.append(agent_ids)
            if not cursor:
                return pages

    def _leaving(self, agent_ids: Sequence[UUID], claimed: Collection[UUID]) -> tuple[list[UUID], int]:
        """Return the tasks that the old index may forget, and the number of those that a worker is about to start.

        It keeps these, those that run, and those that the new one lacks.
        """
        kept: set[UUID] = set()
        starting: set[UUID] = set()
        for chunk in chunks(agent_ids):
            query = select(Activity.agent_id, Activity.status).where(
                Activity.agent_id.in_(chunk), Activity.queue == self._queue
            )
            with reading(self._engine, by_key_only=True) as connection:
                status: dict[Any, Any] = {row.agent_id: row.status for row in connection.execute(query)}
            kept.update(agent_id for agent_id, found in status.items() if found is Status.RUNNING)
            queued = [agent_id for agent_id, found in status.items() if found is Status.QUEUED]
            starting.update(agent_id for agent_id in queued if agent_id in claimed)
            kept.update(self._target.unknown_tasks(self._queue, queued))
            # A set: the reconciler of an old worker puts them back, and they leave once more.
            self._moved.update({*queued} - kept - starting)
        kept |= starting
        return [agent_id for agent_id in agent_ids if agent_id not in kept], len(starting)

    def _claimed_tasks(self) -> set[UUID]:
        """Return the tasks that live workers have claimed."""
        if not self._source.depth(self._queue).leased:
            return set()
        return {
            lease.agent_id
            for worker_id in live_workers(self._engine, self._queue)
            for lease in self._source.worker_leases(self._queue, worker_id)
        }

    def _running_tasks(self) -> set[UUID]:
        query = select(Activity.agent_id).where(
            Activity.queue == self._queue, Activity.status == Status.RUNNING
        )
        with reading(self._engine) as connection:
            return {*connection.execute(query).scalars()}


def share_place(source: StateBackend, target: StateBackend) -> bool:
    """Return True if two backends keep their queues in the same place, however their settings name it.

    One leaves a mark, a leadership that nobody else seeks, and the other one looks for it. Raises UnavailableError.
    """
    mark = f"move-{uuid4().hex}"
    source.acquire_leadership(mark, "source", MARK_SECONDS)
    try:
        if not target.acquire_leadership(mark, "target", MARK_SECONDS):
            return True
        target.release_leadership(mark, "target")
        return False
    finally:
        source.release_leadership(mark, "source")


def _awaited(running: int, staying: int) -> str:
    """Return what a move waits for, as a sentence without its end; empty if that is nothing."""
    parts = [f"{running} task(s) that run"] if running else []
    parts += [f"the answer of {staying} worker process(es)"] if staying else []
    return f"waiting for {' and '.join(parts)}" if parts else ""
