"""The worker process: claim, execute, finish.

One asyncio loop runs the handlers. Blocking calls belong to threads beside it, each with one duty: the claimer takes
tasks from the queue and admits them, the writer records what happens, the lease renewer keeps the leases, the
presence reports the process, and the mailbox receives cancellations.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agentexec.activity.mailbox import Mailbox
from agentexec.config import Settings
from agentexec.registry import Registry
from agentexec.runtime import Runtime
from agentexec.worker.claiming import IDLE_WAIT, Claimer
from agentexec.worker.draining import GRACE_AFTER_CANCEL, Drain
from agentexec.worker.execution import Execution
from agentexec.worker.lease_renewal import LeaseRenewer
from agentexec.worker.loop_watch import LoopWatch
from agentexec.worker.pauses import Pauses
from agentexec.worker.presence import Presence
from agentexec.worker.scoreboard import Cell, State
from agentexec.worker.turnover import Turnover

log = logging.getLogger("agentexec.worker")

MOVE_PATIENCE = 5.0
"""Seconds for which a task may wait for others while its queue moves: these may be on the same queue, and start nowhere."""


class Worker:
    """One worker process, from its start to the last task that it finishes or hands back.

    Threads: the event loop's thread calls everything. The parts own all state.
    """

    def __init__(
        self,
        registry: Registry,
        runtime: Runtime,
        settings: Settings,
        worker_id: str,
        turnover: Turnover | None = None,
    ) -> None:
        self._runtime = runtime
        self._turnover = turnover = turnover or Turnover(Cell.alone(), settings.worker_concurrency)
        self._worker_id = worker_id
        self._claims = False
        draining = threading.Event()
        self._pauses = Pauses(runtime.engine, [queue.name for queue in settings.served_queues])
        self._execution = execution = Execution(
            registry, runtime, settings, stopping=draining.is_set, shares_queue=True
        )
        self._claimer = Claimer(
            runtime.backend,
            settings,
            worker_id,
            slots=execution.slots,
            suspects=execution.suspects,
            tasks=execution.tasks,
            admission=execution.admitter,
            turnover=turnover,
            started=lambda: execution.running.started,
            on_used_up=self._retire,
            backlog=lambda: execution.writer.backlog,
            draining=draining,
            pauses=self._pauses,
            limits=registry.limits,
        )
        self._presence = Presence(
            runtime,
            settings,
            worker_id,
            lambda: (execution.running.count, draining.is_set()),
            task_names=registry.names,
            versions=execution.versions,
            after_gap=lambda: self._renewer.renew(),
        )
        self._renewer = LeaseRenewer(
            runtime,
            settings,
            worker_id,
            execution.tasks,
            on_lost=execution.running.abort,
            was_seen_since=self._presence.was_seen_since,
        )
        self._drain = Drain(
            execution.running,
            execution.slots,
            draining,
            settings.graceful_shutdown_timeout,
            on_progress=lambda: turnover.note_retiring(execution.slots.used),
        )

    async def run(self) -> None:
        """Claim, execute and finish tasks until `drain` is called and every task has ended or is handed back."""
        # Plain functions inside agents and steps may wait for other tasks too, so they get the handlers' threads.
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(self._execution.threads)
        self._execution.open()
        self._runtime.leases = self._renewer
        self._renewer.start()
        self._presence.start()
        watch = LoopWatch(
            lambda: self._execution.running.count > 0, self._turnover.cell, self._look_for_order
        )
        watch.start()
        mailbox = self._runtime.get_shared(Mailbox, lambda: Mailbox(self._runtime, self._worker_id))
        mailbox.on_queues(self._pauses.refresh)
        mailbox.on_move(self._leave_queue)
        mailbox.on_cancel(self._execution.running.cancel_task)
        self._claimer.start()
        self._claims = True
        self._turnover.cell.note_state(State.SERVING)
        await self._drain.wait_for_request()
        await asyncio.to_thread(self._claimer.wait_until_idle, IDLE_WAIT)
        await self._drain.finish_running()
        watch.stop()
        # Closing the event loop waits for the threads of its executor; some of ours may never end.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await asyncio.to_thread(self._close)

    def drain(self) -> None:
        """Stop claiming, and give running tasks the graceful shutdown time-out. Call it on the event loop."""
        self._drain.request()

    def drain_now(self) -> None:
        """Stop claiming, cancel running tasks and hand them back. Call it on the event loop."""
        self._drain.request_now()

    def _look_for_order(self) -> None:
        if self._turnover.cell.retirement_ordered:
            self._retire()

    def _retire(self) -> None:
        """Stop claiming, and finish the running tasks, however long they take; from any thread."""
        self._loop.call_soon_threadsafe(self._drain.retire)

    def _leave_queue(self, queue: str) -> bool:
        """Claim no tasks of a queue that moves, and hand those back that wait for others; in the mailbox's thread.

        Returns False if it is not paused here. Anyone who can write to the state backend can say that it moves.
        """
        self._pauses.refresh()
        if queue not in self._pauses.paused():
            return False
        self._loop.call_soon_threadsafe(self._put_back_waiting, queue)
        return True

    def _put_back_waiting(self, queue: str) -> None:
        waiting = self._execution.slots.waiting_for_tasks(MOVE_PATIENCE)
        self._execution.running.put_back(
            [agent_id for agent_id in waiting if self._execution.tasks.queue_of(agent_id) == queue]
        )

    def abandon(self) -> bool:
        """Hand every task back after the event loop has ended too early; return False if none was claimed yet."""
        if not self._claims:
            return False
        self._drain.announce()
        self._claimer.wait_until_idle(IDLE_WAIT)
        self._execution.running.hand_back()
        self._close()
        return True

    def report(self) -> dict[str, Any]:
        """Return the state of this process for the supervisor: running tasks, and seconds since it last claimed."""
        state: dict[str, Any] = {
            "running": self._execution.running.count,
            "leases": len(self._execution.tasks.all()),
        }
        if self._claimer.active_at is not None:
            state["claim"] = round(time.monotonic() - self._claimer.active_at, 1)
        return state

    def _close(self) -> None:
        self._execution.admitter.release_held()
        if not self._execution.writer.close(GRACE_AFTER_CANCEL):
            log.error(
                "Cannot reach the database; tasks whose results are unwritten run again when it is back."
            )
        self._renewer.stop()
        self._presence.stop()
