"""Everything that people see of one task, read from the record and, for a running task, from the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.queries.contents import TaskContents, contents, workers_of
from agentexec.activity.queries.overview import WorkerSchema
from agentexec.activity.queries.pauses import PauseSchema, pauses_of
from agentexec.activity.schemas import ActivityDetailSchema
from agentexec.errors import AgentexecError
from agentexec.runtime import RUNTIME
from agentexec.state.answers import Waiting
from agentexec.state.groups import SupportsGroups
from agentexec.task import Status

if TYPE_CHECKING:
    from agentexec.client.approvals import ApprovalSchema
    from agentexec.journal.given_up import GivenUpRun
    from agentexec.journal.open_waits import AwaitedEvent


MAX_DECISIONS = 20
"""Decisions about calls that are shown, the newest ones."""


class TaskView(NamedTuple):
    """One task. What only active tasks have is empty for the others."""

    activity: ActivityDetailSchema
    contents: TaskContents
    approvals: list[ApprovalSchema]
    events: list[AwaitedEvent]
    sleeps_until: datetime | None
    workers: list[WorkerSchema]
    """The worker processes of its queue."""

    holder: str | None
    """Id of the worker process that runs it."""

    decisions: Sequence[ApprovalSchema] = ()
    """The calls that were approved or rejected, oldest first."""

    pause: PauseSchema | None = None
    """Pause of its queue, if it is queued."""

    waiting: Waiting | None = None
    """Lock or limit for which it waits, by its queue."""

    webhooks: Sequence[Any] = ()
    """The webhook messages about its ends, as rows."""

    given_up: Sequence[GivenUpRun] = ()
    """Its runs that were given up for a new one, as the code could not replay them."""

    @property
    def worker(self) -> WorkerSchema | None:
        """The process that runs it, as of its latest report."""
        return next((worker for worker in self.workers if worker.worker_id == self.holder), None)


def load_view(
    db: Session, agent_id: UUID, scope: Mapping[str, str] | None, known: TaskView | None = None
) -> TaskView:
    """Read everything about one task. `known` is what was read before of the same task, and saves what cannot change.

    Raises ActivityNotFoundError.
    """
    activity = ax.activity.detail(db, agent_id, metadata_filter=scope)
    if known is not None and _state(known.activity) != _state(activity):
        known = None
    read = contents(db, agent_id) if known is None else known.contents
    if activity.status.final:
        messages, given_up = _messages(db, agent_id), _given_up(db, agent_id)
        decisions = _decisions(db, agent_id)
        return TaskView(
            activity, read, [], [], None, [], None, decisions, webhooks=messages, given_up=given_up
        )
    # Imported on use: tasks that have ended are shown sooner without the journal's tables.
    from agentexec.client.approvals import list_approvals
    from agentexec.journal.open_waits import awaited_events, sleeps_until

    return TaskView(
        activity,
        read,
        list_approvals(db, agent_id, metadata_filter=scope),
        awaited_events(db, agent_id),
        sleeps_until(db, agent_id) if activity.status is Status.QUEUED else None,
        [] if activity.queue is None else workers_of(db, activity.queue),
        _find_holder(activity) if known is None else known.holder,
        _decisions(db, agent_id),
        _find_pause(db, activity),
        _find_waiting(activity),
        given_up=_given_up(db, agent_id),
    )


def _decisions(db: Session, agent_id: UUID) -> Sequence[ApprovalSchema]:
    # Not `ax.approvals`, which also has what answers: nothing is answered here.
    from agentexec.client.approvals import list_approvals

    return list_approvals(db, agent_id, state="decided", limit=MAX_DECISIONS)[::-1]


def _given_up(db: Session, agent_id: UUID) -> Sequence[GivenUpRun]:
    # Imported on use, like the journal's tables above.
    from agentexec.journal.given_up import given_up_runs

    return given_up_runs(db, agent_id)


def _find_waiting(activity: ActivityDetailSchema) -> Waiting | None:
    """Return the lock or limit for which a queued task waits. The queue may be away, and other backends may not tell."""
    has_groups = activity.lock_key is not None or activity.concurrency_key is not None
    if activity.status is not Status.QUEUED or activity.queue is None or not has_groups:
        return None
    try:
        backend = RUNTIME.backend
        if isinstance(backend, SupportsGroups):
            return backend.waiting_for(activity.queue, activity.agent_id)
    except AgentexecError:
        pass
    return None


def _find_pause(db: Session, activity: ActivityDetailSchema) -> PauseSchema | None:
    if activity.status is not Status.QUEUED or activity.queue is None:
        return None
    return next(iter(pauses_of(db, [activity.queue])), None)


def _messages(db: Session, agent_id: UUID) -> Sequence[Any]:
    # Imported on use: only tasks that have ended have messages.
    from agentexec.webhooks.record import messages_of

    return messages_of(db, agent_id)


def _state(activity: ActivityDetailSchema) -> tuple[object, ...]:
    """Return what contents and holder of a task depend on: neither changes within an attempt."""
    return activity.agent_id, activity.status, activity.epoch


def _find_holder(activity: ActivityDetailSchema) -> str | None:
    """Return the worker that holds a running task. The queue may be away, and other backends may not tell."""
    if activity.status is not Status.RUNNING or activity.queue is None:
        return None
    try:
        find = getattr(RUNTIME.backend, "holder", None)
        return None if find is None else find(activity.queue, activity.agent_id)
    except AgentexecError:
        return None
