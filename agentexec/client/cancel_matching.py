"""Canceling all active tasks that match, in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from agentexec.activity.changes.endings import end_from_outside
from agentexec.activity.queries.active import ActiveFilter, select_matching
from agentexec.client.cancel import cancel_children, message_of, tell_workers
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Status

BATCH = 500
"""Tasks in one transaction: none holds locks for long."""


def cancel_in_batches(wanted: ActiveFilter, by: str, limit: int) -> Iterator[int]:
    """Cancel up to `limit` of the tasks that match, with the tasks below them, and yield the number of each batch.

    `by` is the phrase that names who does it. A call that was killed half-way may be made again.
    """
    left = limit
    while left > 0:
        found = wait_out(_find, wanted, min(BATCH, left))
        canceled = sum(
            wait_out(_cancel, queue, ids, message_of(by), utc_now()) for queue, ids in found.items()
        )
        if not found:
            return
        left -= sum(map(len, found.values()))
        yield canceled


def _find(wanted: ActiveFilter, number: int) -> Mapping[str, list[UUID]]:
    """Return the ids of the first tasks that match, by queue."""
    queues: dict[str, list[UUID]] = {}
    with reading(RUNTIME.engine) as connection:
        for agent_id, queue in select_matching(connection, wanted, number):
            queues.setdefault(queue, []).append(agent_id)
    return queues


@retry_on_deadlock
def _cancel(queue: str, agent_ids: Sequence[UUID], message: str, now: datetime) -> int:
    with writing(RUNTIME.engine) as connection:
        ended = end_from_outside(
            connection, agent_ids, status=Status.CANCELED, message=message, error=None, now=now
        )
    if ended:
        tell_workers(queue, ended)
        cancel_children(ended)
    return len(ended)
