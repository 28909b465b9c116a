"""Requeuing tasks that failed or were canceled, on request."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from agentexec.activity.changes.endings import requeue_ended, with_log_line
from agentexec.activity.queries.handle import find_task
from agentexec.arguments.actors import phrase
from agentexec.arguments.budgets import Limit, checked_limit
from agentexec.arguments.checks import check_flag
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.errors import UsageError
from agentexec.journal.approvals import supersede_refused_raises
from agentexec.journal.cuts import cut_at
from agentexec.journal.forks import next_run, truncate
from agentexec.journal.ledger import replace_limit
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Entry, Task, agent_id_of, stored_entry

log = logging.getLogger("agentexec.retrying")

MESSAGE = "Put back on the queue{by}."


class RetryFrom(NamedTuple):
    """Part of a task that a retry takes again: the turns of a run from `turn` on, or everything if that is 0."""

    turn: int
    run: str | None

    @property
    def phrase(self) -> str:
        """The part of a log line that names it."""
        return f" from turn {self.turn}" if self.turn else " from its start"


class RetryChange(NamedTuple):
    """Change that a retry makes to its task; none by default."""

    start: RetryFrom | None = None
    limit: Limit | None = None

    def phrase(self, by: str) -> str:
        """Return the part of the log line that names who retries, and what changes."""
        if self == RetryChange():
            return by
        start = "" if self.start is None else self.start.phrase
        budget = "" if self.limit is None else f", with a budget of {self.limit}"
        return f"{by or ' by hand'}{start}{budget}"


async def retry(
    task: Task | UUID | str,
    *,
    from_turn: int | None = None,
    from_start: bool = False,
    run: str | None = None,
    budget: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> bool:
    """Put a task that ended in ERROR or CANCELED back on its queue, for one more attempt and as many as its `retries`.

    Its journal stays: an agent or pipeline resumes at its last finished step, and children that failed or were canceled
    are enqueued again. If a later task has taken over its idempotency key, both run, and the key stays with the later one.

    With `from_turn` or `from_start`, the part of the journal that is to be done again is removed first, for good: use
    `ax.fork` to keep both. Calls at a place that the task has been at before have the same `ax.idempotency_key()` as then,
    and complete children there keep their results. What the removed turns have spent stays counted, and what people have
    decided about their calls stays on the record.

    Args:
        task: Handle or agent_id of the task.
        from_turn: The first turn of its agent that is taken again, from 1.
        from_start: True to take everything again, steps before the agent's run too.
        run: Path of the run whose turn it is, such as "Writer#1", if the task has several.
        budget: New limit of what the task may spend in all, like "$5.00"; by default as before. Spent amounts stay counted, and
            what approvals have added to its limit stays added.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the task's log.

    Returns:
        False if the task has not ended, is complete, or has no queue.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UsageError: The task has no such turn or run, or the budget is not an amount.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    change = RetryChange(_checked_start(from_turn, from_start, run), checked_limit("budget=", budget))
    return await RUNTIME.run_patiently(
        _retry, agent_id_of(task), metadata_filter, phrase(by), utc_now(), change
    )


def retry_sync(
    task: Task | UUID | str,
    *,
    from_turn: int | None = None,
    from_start: bool = False,
    run: str | None = None,
    budget: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> bool:
    """Retry a task: `retry` for code without an event loop, with the same arguments, result and errors."""
    change = RetryChange(_checked_start(from_turn, from_start, run), checked_limit("budget=", budget))
    return wait_out(_retry, agent_id_of(task), metadata_filter, phrase(by), utc_now(), change)


def _checked_start(from_turn: int | None, from_start: bool, run: str | None) -> RetryFrom | None:
    check_flag("from_start=", from_start)
    if from_start and (from_turn is not None or run is not None):
        raise UsageError("from_start= takes everything again; leave out from_turn= and run=.")
    if from_turn is None:
        if run is not None:
            raise UsageError("run= names the run of from_turn=, which is missing.")
        return RetryFrom(0, None) if from_start else None
    return RetryFrom(check_turn("from_turn=", from_turn), run)


def _retry(
    agent_id: UUID, metadata_filter: Mapping[str, Any] | None, by: str, now: datetime, change: RetryChange
) -> bool:
    """Retry a task. May be called again with the same `now` after UnavailableError."""
    find_task(RUNTIME.engine, agent_id, metadata_filter)
    return _requeue(agent_id, change.phrase(by), now, change)


@retry_on_deadlock
def _requeue(agent_id: UUID, by: str, now: datetime, change: RetryChange) -> bool:
    with writing(RUNTIME.engine) as connection:
        queues = _requeue_changed(connection, agent_id, by, now, change)
    push_requeued(queues)
    return bool(queues)


def _requeue_changed(
    connection: Connection, agent_id: UUID, by: str, now: datetime, change: RetryChange
) -> dict[str, list[Entry]]:
    """Make an ended task QUEUED again, with what the retry changes of it."""
    if change == RetryChange():
        return requeue(connection, [agent_id], now, by)
    # An earlier try, whose commit was not confirmed, may have been made, and the task may have gone on since.
    is_done = bool(with_log_line(connection, [agent_id], MESSAGE.format(by=by), now))
    queues = requeue(connection, [agent_id], now, by)
    if queues and not is_done:
        # Nobody appends meanwhile: the task does not run, and its row is locked.
        if change.start is not None:
            cut = cut_at(connection, agent_id, change.start.run, change.start.turn)
            truncate(connection, agent_id, cut, next_run(connection, agent_id))
        if change.limit is not None:
            replace_limit(connection, agent_id, change.limit, now)
    return queues


def check_turn(name: str, turn: Any) -> int:
    """Return the number of a turn. Raises UsageError for anything that is none."""
    if isinstance(turn, bool) or not isinstance(turn, int) or turn < 1:
        raise UsageError(f"{name} must be the number of a turn, 1 or more, not {turn!r}.")
    return turn


def requeue(
    connection: Connection, agent_ids: Sequence[UUID], now: datetime, by: str = ""
) -> dict[str, list[Entry]]:
    """Make ended tasks QUEUED again, and return the entries of each queue, for `push_requeued` after the commit.

    `by` is the phrase that names who does it.
    """
    queues: dict[str, list[Entry]] = defaultdict(list)
    for task in requeue_ended(connection, agent_ids, message=MESSAGE.format(by=by or " by hand"), now=now):
        queues[task.queue].append(stored_entry(task))
    supersede_refused_raises(
        connection, [entry.agent_id for entries in queues.values() for entry in entries], now
    )
    if RUNTIME.backend.transactional:
        for queue, entries in queues.items():
            RUNTIME.backend.push(queue, entries, transaction=connection)
    return queues


def push_requeued(queues: Mapping[str, Sequence[Entry]]) -> None:
    """Push tasks that were requeued, or wake the workers if the push was part of the transaction."""
    backend = RUNTIME.backend
    for queue, entries in queues.items():
        with RUNTIME.best_effort(log, "%d retried task(s) are pushed when it is back.", len(entries)):
            if backend.transactional:
                backend.wake(queue, len(entries))
            else:
                backend.push(queue, entries)
