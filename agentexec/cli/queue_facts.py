"""Queue, priority and due time of a task, as columns and as JSON."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agentexec.cli.output import format_duration, format_moment

if TYPE_CHECKING:
    from agentexec.activity.schemas import ActivityDetailSchema, ActivityListItemSchema

    Item = ActivityListItemSchema | ActivityDetailSchema


def queue_facts(task: Item) -> dict[str, Any]:
    """Return what the JSON of the command line has beyond that of the Python API."""
    return {
        "queue": task.queue,
        "priority": None if task.queue is None else priority_name(task.priority),
        "lock_key": task.lock_key,
        "concurrency_key": task.concurrency_key,
        "fairness_key": task.fairness_key,
        "run_at": None if task.run_at is None else task.run_at.isoformat(),
    }


def priority_name(priority: int) -> str:
    """Return the name that the option --priority takes."""
    # Imported on use: the command line is parsed sooner without it.
    from agentexec.task import Priority

    names = {known.value: known.name.lower() for known in Priority}
    return names.get(priority, str(priority))


def due_text(task: Item, now: datetime) -> str:
    """Return when a queued task may start, in a few characters."""
    from agentexec.activity.queries.waits import FAR
    from agentexec.cli.situation import future_start
    from agentexec.task import Status

    if task.status is not Status.QUEUED or task.queue is None:
        return "-"
    due = future_start(task.run_at, now)
    if due is None:
        return "now"
    return "waits" if due - now > FAR else f"in {format_duration((due - now).total_seconds())}"


def latest_text(task: ActivityListItemSchema, now: datetime) -> str | None:
    """Return what a task waits for, unless its latest log line says so, or that line."""
    wait = task.waiting
    if wait is None or wait.kind not in ("start", "lock") or task.started_at is not None:
        return task.latest_log_message
    if wait.kind == "lock":
        return f"Waiting for lock {wait.name}."
    return "Scheduled." if wait.until is None else f"Scheduled for {format_moment(wait.until, now)}."


def dump_json(value: Any) -> str:
    """Return a value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
