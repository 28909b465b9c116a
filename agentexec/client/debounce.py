"""Debounce: enqueues with the same key are merged into one task, until it starts."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.models import MAX_NAME, Activity
from agentexec.arguments.debounce import Debounce, checked_debounce
from agentexec.arguments.key_templates import fill_template
from agentexec.client.new_task import Context, EnqueueOptions, new_task
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.runtime import RUNTIME
from agentexec.task import Status, Task

_HOLDER = select(
    Activity.agent_id,
    Activity.agent_type,
    Activity.queue,
    Activity.status,
    Activity.started_at,
    Activity.created_at,
    Activity.run_at,
    Activity.expires_at,
).with_for_update()


def new_debounced_task(task_name: str, context: Context, options: EnqueueOptions) -> NewTask:
    """Return the row of a new task, with what `debounce` of the call or of its definition says."""
    new = new_task(task_name, context, **options)
    debounce = _find_debounce(new.task_name, options)
    if debounce is None:
        return new
    for name in ("delay", "eta", "idempotency_key"):
        if options.get(name) is not None:
            raise UsageError(
                f"{name}= and debounce= exclude each other; debounce=0 turns off that of the task."
            )
    key = (
        fill_template(f"The debounce_key of task {task_name}", debounce.key, new.context, MAX_NAME)
        if debounce.key
        else ""
    )
    if key is None:  # a field is null: nobody knows with which the task would be merged
        return new
    run_at = utc_now() + timedelta(seconds=debounce.seconds)
    expires_at = new.expires_at
    if expires_at is not None and options.get("expires") is None:
        expires_at += timedelta(
            seconds=debounce.seconds
        )  # the option of a task counts from when it may start
    if expires_at is not None and expires_at <= run_at:
        raise UsageError("expires= ends before debounce= lets the task start, so it would never run.")
    return new._replace(
        run_at=run_at,
        expires_at=expires_at,
        debounce_key=_stored_key(new, key),
        debounce_seconds=debounce.seconds,
        debounce_maximum=debounce.maximum,
    )


def _find_debounce(task_name: str, options: EnqueueOptions) -> Debounce | None:
    definition = RUNTIME.definition(task_name)
    default = None if definition is None else definition.debounce
    if options.get("debounce") == 0:
        return None
    return checked_debounce("", options, default)


def _stored_key(new: NewTask, key: str) -> str:
    """Return a key that no other task and no other queue has. A long one ends in its hash."""
    text = f"{new.queue or CONF.queue_name}:{new.task_name}:{key}"
    if len(text) <= MAX_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: MAX_NAME - len(digest) - 1]}#{digest}"


def merge_into_waiting(connection: Connection, new: NewTask) -> Task | None:
    """Merge a task into the one that waits with its key, and return that; else None, and the key is free.

    The entry in the queue stays as it is. Once it is due, the worker that claims it sees in the record that the task has to
    wait for longer.
    """
    row: Any = connection.execute(_HOLDER.where(Activity.debounce_key == new.debounce_key)).one_or_none()
    if row is None:
        return None
    now = utc_now()
    waits = row.status is Status.QUEUED and row.started_at is None
    mine = update(Activity).where(Activity.agent_id == row.agent_id)
    if not waits or (row.expires_at is not None and row.expires_at <= now):
        connection.execute(mine.values(debounce_key=None))
        return None
    # Never earlier than before: the entry in the queue is not due yet.
    run_at = max(now + timedelta(seconds=new.debounce_seconds), row.run_at or now)
    if new.debounce_maximum is not None:
        run_at = min(run_at, row.created_at + timedelta(seconds=new.debounce_maximum))
        run_at = max(run_at, row.run_at or run_at)
    context = None if new.context is None else RUNTIME.offload(row.agent_id, "context", new.context)
    values = {"context": context, "run_at": run_at, "updated_at": now, "expires_at": new.expires_at}
    connection.execute(mine.values(values))
    return Task(agent_id=row.agent_id, task_name=row.agent_type, queue_name=row.queue or "")
