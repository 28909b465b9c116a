"""Task expiry: queued tasks that were not started in time end, even if no worker has a free slot to claim them."""

from __future__ import annotations

import logging
from collections import defaultdict
from uuid import UUID

from agentexec.activity.changes.expirations import expire_due
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.runtime import Runtime

log = logging.getLogger("agentexec.reconciler")


class TaskExpiry:
    """Cancels the tasks that have expired, of every queue: one that no worker serves has waiting callers too."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run_once(self) -> None:
        """Cancel what has expired. Raises UnavailableError."""
        while self._expire() == CHUNK_SIZE:
            pass

    @retry_on_deadlock
    def _expire(self) -> int:
        with writing(self._runtime.engine) as connection:
            expired, seen = expire_due(connection, utc_now(), CHUNK_SIZE)
        queues: dict[str, list[UUID]] = defaultdict(list)
        for task in expired:
            queues[task.queue].append(task.agent_id)
        for queue, agent_ids in queues.items():
            log.info("Canceled %d task(s) of queue %s that expired.", len(agent_ids), queue)
            with self._runtime.best_effort(
                log, "Callers of %d expired task(s) learn of it later.", len(agent_ids)
            ):
                self._runtime.backend.remove(queue, agent_ids)
                self._runtime.backend.notify_done(queue, agent_ids)
        return seen
