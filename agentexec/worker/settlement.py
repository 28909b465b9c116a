"""Settlement: after endings are written, the queue and the waiting callers learn of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import Connection

from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.locks import free_locks_now, tasks_with_kept_locks
from agentexec.journal.wake_ups import ready_tasks
from agentexec.runtime import Runtime
from agentexec.state.capabilities import finishing_and_notifying
from agentexec.state.groups import left_by_transaction
from agentexec.task import Lease
from agentexec.worker.leased_tasks import LeasedTasks

log = logging.getLogger("agentexec.worker")


class Settlement:
    """Acknowledges and releases tasks whose endings were written or refused.

    Threads: the writer's thread calls everything. It has no state of its own.

    Args:
        on_written: Called first with the endings that were written.
    """

    def __init__(
        self,
        runtime: Runtime,
        tasks: LeasedTasks,
        *,
        on_written: Callable[[Sequence[Ending]], object] | None = None,
    ) -> None:
        self._runtime = runtime
        self._backend = runtime.backend
        self._tasks = tasks
        self._on_written = on_written

    def acknowledge(self, connection: Connection, endings: Sequence[Ending]) -> None:
        """Acknowledge tasks in the transaction that ends them, for a queue in the same database."""
        ended = [ending.lease for ending in endings if ending.status.final]
        for queue, leases in self._tasks.by_queue(ended):
            self._backend.finish(queue, leases, transaction=connection)

    def settle(self, written: Sequence[Ending], refused: Sequence[Ending]) -> None:
        """Acknowledge or release tasks after the commit, and notify those that wait."""
        if self._on_written is not None:
            self._on_written(written)
        finished = self._tasks.by_queue([ending.lease for ending in written if ending.status.final])
        released: dict[str, list[Ending]] = {}
        for ending in written:
            if not ending.status.final:
                released.setdefault(self._tasks.queue_of(ending.lease.agent_id), []).append(ending)
        self._tasks.settle([ending.lease.agent_id for ending in (*written, *refused)])
        for ending in refused:
            log.warning(
                "The ending of task %s (%s) was refused: the task was canceled or claimed by another worker.",
                ending.lease.agent_id,
                ending.status,
            )
        for queue, leases in finished:
            self._finish(queue, leases)
        for queue, endings in released.items():
            self._release(queue, endings)

    def free_lock(self, agent_id: UUID) -> None:
        """Let the next task have the lock of one that was ended from outside, now that its handler has stopped."""
        engine = self._runtime.engine
        with self._runtime.best_effort(log, "The lock of task %s is freed by the reconciler.", agent_id):
            if tasks_with_kept_locks(engine, [agent_id]):
                free_locks_now(engine, [agent_id])

    def _finish(self, queue: str, leases: Sequence[Lease]) -> None:
        # The record is right already; the leases expire and the reconciler acknowledges the tasks.
        with self._runtime.best_effort(
            log, "The reconciler will acknowledge %d finished task(s).", len(leases)
        ):
            backend = self._backend
            if (combined := finishing_and_notifying(backend)) is not None:
                combined.finish_and_notify(queue, leases)
                return
            left = leases
            if backend.transactional:
                # The others were acknowledged in the transaction that ended them.
                left = left_by_transaction(backend, leases)
            if left:
                backend.finish(queue, left)
            backend.notify_done(queue, [lease.agent_id for lease in leases])

    def _release(self, queue: str, endings: Sequence[Ending]) -> None:
        """Give tasks back to their queue."""
        with self._runtime.best_effort(
            log, "%d task(s) return to the queue when their leases expire.", len(endings)
        ):
            self._tasks.wait_for_renewal()
            for ending in endings:
                self._backend.release(queue, ending.lease, delay=ending.delay)
            waiting = {
                ending.lease.agent_id: ending.awaited_kinds for ending in endings if ending.awaited_kinds
            }
            # An answer that came before the release found no delayed task that it could make ready.
            if waiting and (answered := ready_tasks(self._runtime.engine, waiting)):
                self._backend.make_ready(queue, answered)
