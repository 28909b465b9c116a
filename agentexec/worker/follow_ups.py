"""Follow-ups: what is due after the end of a task, `on_failure` handlers and a webhook, is done from the record.

Every host does this for the tasks that its module has, whoever leads the queue: only the module knows the handlers. Each
follow-up is removed in the transaction that acts on it, so it happens once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Select, bindparam, delete, or_, select

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.changes.statements import ACTIVITY, FOLLOW_UP
from agentexec.activity.models import Activity, FollowUp
from agentexec.activity.schemas import TaskFailure
from agentexec.client.enqueue import enqueue_in_transaction
from agentexec.db.clock import utc_now
from agentexec.db.columns import text_in
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.errors import EncryptionKeyError, PayloadLostError
from agentexec.payloads.columns import stored
from agentexec.payloads.sealing import unseal
from agentexec.registry import Registry
from agentexec.task import Status, new_agent_id
from agentexec.webhooks.record import add_message

log = logging.getLogger("agentexec.maintenance")

CHUNK = 100
"""Endings in one transaction. Each may have a context of a megabyte."""

FOREIGN_SECONDS = 60.0
"""Seconds for which the ending of a task that this host's module lacks is left to hosts that have it."""


class FollowUps:
    """Enqueues the `on_failure` handlers of failed tasks of some queues, or of all, and notes the webhook messages of ended ones."""

    def __init__(self, engine: Engine, registry: Registry, *queues: str) -> None:
        self._engine = engine
        self._registry = registry
        self._queues = queues
        self.query = _due_query(engine.dialect.name, of_queues=bool(queues))
        """Query of what is due; see `values`."""

    def run_once(self, now: datetime | None = None) -> int:
        """Do what is due, an index look-up if nothing is, and return the number of tasks enqueued. Raises UnavailableError."""
        enqueued = 0
        while ids := self._due(now or utc_now()):
            followed, pushed = self._follow(ids)
            enqueued += pushed
            if len(ids) < CHUNK or not followed:
                break
        return enqueued

    def values(self, now: datetime) -> dict[str, Any]:
        """Return the parameters of the query."""
        return {
            "names": list(self._registry.names()),
            "queues": list(self._queues),
            "foreign": now - timedelta(seconds=FOREIGN_SECONDS),
        }

    def _due(self, now: datetime) -> Sequence[int]:
        with looking_up(self._engine) as connection:
            return connection.execute(self.query, self.values(now)).scalars().all()

    @retry_on_deadlock
    def _follow(self, ids: Sequence[int]) -> tuple[int, int]:
        """Do what these endings ask for; return the number of those done here, and that of the tasks enqueued."""
        pushes: list[Callable[[], None]] = []
        with writing(self._engine) as connection:
            locked = select(FollowUp.id).where(FollowUp.id.in_(ids)).order_by(FollowUp.id)
            # Another host may have been quicker, or has them locked and is frozen.
            locked = locked.with_for_update(skip_locked=True)
            mine = connection.execute(locked).scalars().all()
            for row in _endings(connection, mine):
                if row.webhook is not None and row.status.final:
                    add_message(connection, row, utc_now())
                for handler in self._handlers(row):
                    pushes.append(enqueue_in_transaction(connection, self._call_of(handler, row)))
            connection.execute(delete(FollowUp).where(FollowUp.id.in_(mine)))
        for push in pushes:
            push()
        return len(mine), len(pushes)

    def _handlers(self, row: Any) -> list[str]:
        # Somebody may have retried the task meanwhile.
        if not row.is_failure or row.status not in (Status.ERROR, Status.CANCELED):
            return []
        return self._registry.handlers_of_failure(row.agent_type)

    def _call_of(self, handler: str, row: Any) -> NewTask:
        """Return the task that calls a handler of a failure. It belongs to the same tenant, and has the same priority."""
        definition = self._registry.find(handler)
        own_queue = None if definition is None else definition.queue
        return NewTask(
            agent_id=new_agent_id(),
            task_name=handler,
            context=failure_of(row).model_dump_json(),
            queue=own_queue or row.queue,
            priority=row.priority,
            run_at=None,
            metadata=row.labels,
            idempotency_key=None,
            fairness_key=row.fairness_key,
            fairness_weight=row.fairness_weight or 1.0,
            message=f"Called because task {row.agent_type} ({row.agent_id}) failed.",
        )


def _due_query(dialect: str, *, of_queues: bool) -> Select[Any]:
    """Return the query of the follow-ups that are due, which is part of one that is made every second."""
    c = FOLLOW_UP.c
    ours = or_(
        c.is_failure.is_(False),  # a webhook, which any host can send
        text_in(ACTIVITY.c.agent_type, "names", dialect),
        c.created_at < bindparam("foreign", type_=c.created_at.type),
    )
    query = (
        select(c.id).join(ACTIVITY, ACTIVITY.c.agent_id == c.agent_id).where(ours).order_by(c.id).limit(CHUNK)
    )
    return query.where(text_in(c.queue, "queues", dialect)) if of_queues else query


def _endings(connection: Connection, ids: Sequence[int]) -> Sequence[Any]:
    if not ids:
        return []
    columns = (
        Activity.agent_id,
        Activity.agent_type,
        Activity.status,
        Activity.queue,
        Activity.priority,
        stored(Activity.context),
        Activity.metadata_.label("labels"),
        Activity.error,
        Activity.message,
        Activity.attempt,
        Activity.crashes,
        Activity.finished_at,
        Activity.webhook,
        Activity.fairness_key,
        Activity.fairness_weight,
    )
    query = select(FollowUp.is_failure, FollowUp.created_at.label("ended_at"), *columns)
    joined = query.join(Activity, Activity.agent_id == FollowUp.agent_id)
    return connection.execute(joined.where(FollowUp.id.in_(ids)).order_by(FollowUp.id)).all()


def failure_of(row: Any) -> TaskFailure:
    """Return a failed task as its handlers get it."""
    details = row.error or row.message or "no reason recorded"
    return TaskFailure(
        agent_id=row.agent_id,
        task_name=row.agent_type,
        queue_name=row.queue,
        status=row.status,
        context=_read(row.context),
        metadata=row.labels,
        error=details.splitlines()[0],
        details=details,
        attempts=row.attempt,
        crashes=row.crashes,
        failed_at=row.finished_at or row.ended_at,
    )


def _read(context: str | None) -> Any:
    """Return a context as JSON data; somebody else may have written what is none, or has its key."""
    try:
        return None if context is None else json.loads(unseal(context))
    except (ValueError, RecursionError, EncryptionKeyError, PayloadLostError):
        return None
