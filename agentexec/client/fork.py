"""Forking tasks: a new task that begins with what another one has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from agentexec.activity.changes.new_tasks import NewTask, activity_rows, first_label_rows, log_row
from agentexec.activity.changes.statements import ACTIVITY, INSERT_ACTIVITY, INSERT_LABEL, INSERT_LOG
from agentexec.activity.queries.handle import find_task
from agentexec.arguments.actors import phrase
from agentexec.arguments.budgets import without_ancestors
from agentexec.arguments.checks import check_text
from agentexec.arguments.queue_names import check_queue_name
from agentexec.client.retry import check_turn, push_requeued
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.errors import ActivityNotFoundError, UsageError
from agentexec.journal.cuts import cut_at
from agentexec.journal.forks import Change, Origin, copy_cut, next_fork, read_fork, write_fork
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Status, Task, agent_id_of, new_agent_id, stored_entry

MAX_MODEL = 200
"""Maximum characters of a model's name."""


class ForkRequest(NamedTuple):
    """A fork as it was asked for, with every value checked."""

    origin: UUID
    fork: UUID
    change: Change
    queue: str | None
    metadata_filter: Mapping[str, Any] | None
    by: str
    now: datetime


async def fork(
    task: Task | UUID | str,
    *,
    at: int,
    run: str | None = None,
    instructions: str | None = None,
    model: str | None = None,
    input: str | None = None,
    queue_name: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> Task:
    """Enqueue a new task that begins with what a task has recorded before a turn of its agent, and goes on for real.

    What comes before the turn is answered from the record: no model is called and no tool runs again. From the turn on,
    the new task calls models and tools itself, with the changes given here and with the code that its worker has. Its calls
    have `ax.idempotency_key()`s of their own, so services take them for new ones. The task it comes from stays as it is,
    whatever its status; the logs of both tasks name the other.

    The new task has the context, queue, priority, labels and keys for locks, limits and fairness of the first one, but
    neither its idempotency key nor its webhook nor its parent. Inside a task, call this in a step of your runner.

    Args:
        task: Handle or agent_id of the task.
        at: The first turn that the new task takes itself, from 1 to the one after the last recorded turn.
        run: Path of the run whose turn it is, such as "Writer#1", if the task has several.
        instructions: Instructions of the agent that takes the turn, in this turn and all later ones of the run.
        model: Name of its model, likewise.
        input: Message of a user that the agent reads right before the turn.
        queue_name: Queue of the new task; by default that of the first one.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the tasks' logs.

    Returns:
        The handle of the new task.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UsageError: The task has no such turn or run, or an argument is invalid.
        PayloadTooLargeError: The changes are above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    change = _checked_change(at, run, instructions, model, input)
    request = _request(task, change, queue_name, metadata_filter, by)
    return await RUNTIME.run_patiently(_fork, request)


def fork_sync(
    task: Task | UUID | str,
    *,
    at: int,
    run: str | None = None,
    instructions: str | None = None,
    model: str | None = None,
    input: str | None = None,
    queue_name: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> Task:
    """Fork a task: `fork` for code without an event loop, with the same arguments, result and errors."""
    change = _checked_change(at, run, instructions, model, input)
    return wait_out(_fork, _request(task, change, queue_name, metadata_filter, by))


def _checked_change(
    at: int, run: str | None, instructions: str | None, model: str | None, input: str | None
) -> Change:
    check_turn("at=", at)
    texts = {"run=": run, "instructions=": instructions, "input=": input}
    for name, text in texts.items():
        if text is not None:
            check_text(name, text, CONF.max_payload_bytes)
    if model is not None:
        check_text("model=", model, MAX_MODEL)
    return Change(run or "", at, instructions, model, input)


def _request(
    task: Task | UUID | str,
    change: Change,
    queue_name: str | None,
    metadata_filter: Mapping[str, Any] | None,
    by: str | None,
) -> ForkRequest:
    queue = None if queue_name is None else check_queue_name("queue_name=", queue_name)
    origin, now = agent_id_of(task), utc_now()
    return ForkRequest(origin, new_agent_id(), change, queue, metadata_filter, phrase(by), now)


def _fork(request: ForkRequest) -> Task:
    """Fork a task. May be called again with the same request after UnavailableError."""
    find_task(RUNTIME.engine, request.origin, request.metadata_filter)
    queue, entry, name = _record(request)
    push_requeued({queue: [entry]})
    return Task.model_construct(agent_id=request.fork, task_name=name, queue_name=queue)


@retry_on_deadlock
def _record(request: ForkRequest) -> tuple[str, Any, str]:
    """Write the new task and its journal in one transaction; return its queue, its entry there, and its name."""
    with writing(RUNTIME.engine) as connection:
        row = _read(connection, request.fork)
        if row is None:  # else an earlier try has written it, whose commit was not confirmed
            row = _write(connection, request)
        entry = stored_entry(row)
        if RUNTIME.backend.transactional:
            RUNTIME.backend.push(row.queue, [entry], transaction=connection)
    return row.queue, entry, row.agent_type


def _read(connection: Connection, agent_id: UUID) -> Any:
    return connection.execute(select(ACTIVITY).where(ACTIVITY.c.agent_id == agent_id)).one_or_none()


def _write(connection: Connection, request: ForkRequest) -> Any:
    origin = _read(connection, request.origin)
    if origin is None:
        raise ActivityNotFoundError(request.origin)
    if origin.queue is None and request.queue is None:
        raise UsageError(f"Activity {request.origin} has no queue, because an application runs it by itself.")
    cut = cut_at(
        connection,
        request.origin,
        request.change.run or None,
        request.change.turn,
        may_follow=origin.status is not Status.COMPLETE,
    )
    change = request.change._replace(run=cut.run)
    source = Origin(request.origin, cut.time or request.now, origin.attempt)
    changed = _what_changes(change)
    message = f"Forked from task {request.origin} at turn {change.turn} of {cut.run}{changed}{request.by}."
    new = NewTask(
        agent_id=request.fork,
        task_name=origin.agent_type,
        context=origin.context,
        queue=request.queue or origin.queue,
        priority=origin.priority,
        run_at=None,
        metadata=origin.metadata,
        idempotency_key=None,
        message=message,
        fairness_key=origin.fairness_key,
        fairness_weight=origin.fairness_weight or 1.0,
        lock_key=origin.lock_key,
        concurrency_key=origin.concurrency_key,
        budget=without_ancestors(origin.budget),
        trace_context=_trace_context(origin.agent_type, request.queue or origin.queue),
    )
    # Its worker reads a journal only under a second or later epoch.
    epoch = max(origin.epoch, 1)
    connection.execute(INSERT_ACTIVITY, {**activity_rows([new], request.now)[0], "epoch": epoch})
    if labels := first_label_rows([new], request.now):
        connection.execute(INSERT_LABEL, labels)
    note = f"Forked at turn {change.turn} of {cut.run}{changed} as task {request.fork}{request.by}."
    lines = [
        log_row(request.fork, request.now, Status.QUEUED, message, 0),
        log_row(request.origin, request.now, origin.status, note, origin.percentage),
    ]
    connection.execute(INSERT_LOG, lines)
    copy_cut(connection, request.origin, request.fork, cut)
    fork = next_fork(read_fork(connection, request.origin), source, change)
    write_fork(connection, request.fork, epoch, fork, request.now)
    return _read(connection, request.fork)


def _what_changes(change: Change) -> str:
    """Return the part of a log line that tells forks of one task apart; texts of users stay in the journal."""
    found = [
        "" if change.instructions is None else "other instructions",
        "" if change.model is None else f"model {change.model}",
        "" if change.input is None else "a message",
    ]
    named = [what for what in found if what]
    if not named:
        return ""
    *before, last = named
    return f" with {', '.join(before)} and {last}" if before else f" with {last}"


def _trace_context(task_name: str, queue: str) -> str | None:
    tracing = RUNTIME.tracing
    return None if tracing is None else tracing.carrier(task_name, queue)


__all__ = ["fork", "fork_sync"]
