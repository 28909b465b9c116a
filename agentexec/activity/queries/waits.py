"""Reasons for which queued tasks of a list wait, as their rows tell: a start time, a person, an event, a lock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from agentexec.activity.failures import read_failure
from agentexec.activity.models import Activity
from agentexec.activity.schemas import ActivityListItemSchema, WaitKind, WaitSchema
from agentexec.task import Status

FAR = timedelta(days=5 * 365)
"""Time ahead from which a start means that a task waits without a time limit."""

MAX_NAMED = 200
"""Characters of what is waited for."""

_LINE = re.compile(
    r"(?P<kind>Waiting for approval|Waiting for event|Sleeping until)\b:? ?(?P<name>.*)", re.DOTALL
)
_VERSION = re.compile(r"Waiting for a worker of version (?P<name>.*)\.$", re.DOTALL)
_KINDS: dict[str, WaitKind] = {
    "Waiting for approval": "approval",
    "Waiting for event": "event",
    "Sleeping until": "sleep",
}


def add_waits(db: Session, tasks: Sequence[ActivityListItemSchema], now: datetime) -> None:
    """Set why each queued task of a list waits. Runs one statement if some have a lock, none otherwise."""
    ready: list[ActivityListItemSchema] = []
    for task in tasks:
        if task.status is not Status.QUEUED or task.queue is None:
            continue
        if task.run_at is not None and task.run_at > now:
            task.waiting = _delayed(task, task.run_at, now)
        elif found := _VERSION.match(task.latest_log_message or ""):
            task.waiting = WaitSchema(kind="version", name=found["name"][:MAX_NAMED])
        elif task.lock_key is not None:
            ready.append(task)
    if ready:
        _add_locks(db, ready)


def _delayed(task: ActivityListItemSchema, start: datetime, now: datetime) -> WaitSchema:
    """Return why a task does not start before a moment, by its latest log line, which the worker wrote."""
    until = None if start - now > FAR else start
    message = task.latest_log_message or ""
    if found := _LINE.match(message):
        kind = _KINDS[found["kind"]]
        return WaitSchema(kind=kind, until=until, name=None if kind == "sleep" else found["name"][:MAX_NAMED])
    failed = read_failure(task.status, message) is not None
    return WaitSchema(kind="retry" if failed else "start", until=until)


def _add_locks(db: Session, tasks: Sequence[ActivityListItemSchema]) -> None:
    """Note the tasks whose locks others have, by the record: the queue may be away."""
    keys = {task.lock_key for task in tasks}
    held = select(Activity.held_lock, Activity.agent_id).where(Activity.held_lock.in_(keys))
    holders = {row.held_lock: row.agent_id for row in db.execute(held)}
    for task in tasks:
        if holders.get(task.lock_key, task.agent_id) != task.agent_id:
            task.waiting = WaitSchema(kind="lock", name=task.lock_key)
