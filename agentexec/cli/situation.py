"""The situation of a task in sentences: since when it is queued, when it starts, what it waits for, which worker runs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agentexec.activity.failures import FailedAttempt, read_failure
from agentexec.activity.queries.overview import LOST_SECONDS
from agentexec.activity.queries.waits import FAR
from agentexec.cli.output import format_duration, format_moment
from agentexec.runtime import RUNTIME
from agentexec.state.groups import is_lock, key_of
from agentexec.task import Status
from agentexec.values.presentation import Presenter, shorten

if TYPE_CHECKING:
    from agentexec.activity.schemas import ActivityChildSchema, ActivityDetailSchema
    from agentexec.cli.task_view import TaskView
    from agentexec.state.answers import Waiting


MAX_ARGUMENTS = 1_000
"""Characters of the arguments of a call that waits for approval."""

MAX_HOLDER = 200
"""Characters of a worker's name, which comes from the queue."""

MAX_REASON = 300
"""Characters of the reason why an attempt failed."""


def sentences(view: TaskView, now: datetime, presenter: Presenter) -> list[str]:
    """Return what a task does now and what it waits for, without secrets; nothing for a task that has ended."""
    task = view.activity
    if task.status.final:
        return []
    waits = [presenter.text(wait) for wait in _waits(view, now, presenter)]
    if task.queue is None:
        return waits
    if task.status is Status.RUNNING:
        return [_running(view, now), *waits]
    paused = [] if view.pause is None else [view.pause.sentence()]
    due = future_start(task.run_at, now)
    if due is None:
        return [_queued(view, now) + expiry_text(task.expires_at, now), *waits, *paused]
    # An attempt that failed is tried again at that time, whatever it waited for.
    failed = bool(task.logs) and read_failure(task.logs[-1].status, task.logs[-1].message) is not None
    if waits and not failed:
        return [*waits, *paused]
    return [start_text(due, now) + expiry_text(task.expires_at, now), *waits, *paused]


def future_start(run_at: datetime | None, now: datetime) -> datetime | None:
    """Return the start of a task that may not start yet."""
    return run_at if run_at is not None and run_at > now else None


def start_text(due: datetime, now: datetime) -> str:
    """Return when a task may start: "starts in 4m12s (12:30:05)"."""
    if due - now > FAR:
        return "waits without a time limit"
    return f"starts in {format_duration((due - now).total_seconds())} ({format_moment(due, now)})"


def expiry_text(expires_at: datetime | None, now: datetime) -> str:
    """Return when a task expires, to complete a sentence."""
    return "" if expires_at is None else f", expires unless started by {format_moment(expires_at, now)}"


def _queued(view: TaskView, now: datetime) -> str:
    task = view.activity
    since = task.created_at
    for line in reversed(task.logs):
        if line.status is not Status.QUEUED:
            break
        since = line.created_at
    if task.run_at is not None:
        since = max(since, task.run_at)
    waited = format_duration((now - since).total_seconds())
    text = f"queued since {format_moment(since, now)} ({waited})"
    serving = [worker for worker in view.workers if worker.serves]
    if not serving:
        draining = any(worker.draining and _age(worker, now) < LOST_SECONDS for worker in view.workers)
        text += f", but {'only workers that stop serve' if draining else 'no worker serves'} the queue {task.queue}"
    elif not any(worker.may_run(task.task_name, task.version) for worker in serving):
        text += f", but {lacking_version(task.task_name, task.version, task.queue)}"
    return text


def lacking_version(task_name: str, version: str | None, queue: str | None) -> str:
    """Return the clause about a run that no worker may take, as all are pinned to other versions."""
    if version is None:
        return f"no worker of the queue {queue} has task {task_name}"
    return f"it began with version {version}, and no worker of the queue {queue} runs that version of {task_name}"


def _running(view: TaskView, now: datetime) -> str:
    task, worker = view.activity, view.worker
    if worker is not None:
        age = _age(worker, now)
        report = f"LOST, heartbeat {format_duration(age)} ago" if age > LOST_SECONDS else "alive"
        text = f"runs on {worker.host}, process {worker.pid} ({report})"
    elif view.holder is not None:
        text = f"runs on {view.holder[:MAX_HOLDER]}"
    else:
        text = "runs"
    if task.logs:
        text += f"; last log line {format_duration((now - task.logs[-1].created_at).total_seconds())} ago"
    return text


def _age(worker: Any, now: datetime) -> float:
    return float((now - worker.seen_at).total_seconds())


def _waits(view: TaskView, now: datetime, presenter: Presenter) -> Iterator[str]:
    for approval in view.approvals:
        again = " again" if approval.kind == "repeat" else ""
        arguments = shorten(presenter.text(approval.arguments), MAX_ARGUMENTS, "agentexec approvals")
        call = f"{approval.tool}({arguments})"
        yield f"waits for approval of {call}{again}{_until(approval.expires_at, now)}"
    for event in view.events:
        key = f" {event.key}" if event.key else ""
        yield f"waits for the event {event.name}{key}{_until(event.expires_at, now)}"
    if view.sleeps_until is not None:
        left = format_duration((view.sleeps_until - now).total_seconds())
        yield f"sleeps for {left}, until {format_moment(view.sleeps_until, now)}"
    if view.waiting is not None:
        yield _group_text(view.activity.task_name, view.waiting)
    if view.activity.status is Status.RUNNING and (open_children := _open_children(view.activity)):
        yield f"has {open_children} child(ren) that have not ended"


def _group_text(task_name: str, waiting: Waiting) -> str:
    """Return what a task waits for: "waits for lock user:7, held by AGENT_ID, 3 before it"."""
    key = key_of(waiting.group)
    before = f", {waiting.before} before it" if waiting.before else ""
    if is_lock(waiting.group):
        holder = f", held by {waiting.holders[0]}" if waiting.holders else ""
        return f"waits for lock {key}{holder}{before}"
    definition = RUNTIME.definition(task_name)
    limit = "" if definition is None or definition.concurrency is None else f" of {definition.concurrency}"
    return f"waits for a slot{limit} of {task_name}{f' for {key}' if key else ''}{before}"


def _until(end: datetime | None, now: datetime) -> str:
    return "" if end is None else f", until {format_moment(end, now)}"


def _open_children(task: ActivityDetailSchema | ActivityChildSchema) -> int:
    return sum(not child.status.final for child in task.children)


def previous_failure(task: ActivityDetailSchema) -> FailedAttempt | None:
    """Return the latest attempt that failed and was tried again."""
    found = (read_failure(line.status, line.message) for line in reversed(task.logs))
    return next((failure for failure in found if failure is not None), None)


def attempts_text(task: ActivityDetailSchema) -> str:
    """Return a task's attempt, of how many if that is known, and why the previous one failed."""
    failure = previous_failure(task)
    allowed = max_attempts(task)
    text = str(task.attempt) if allowed is None else f"{task.attempt} of {allowed}"
    if failure is None or (task.status.final and task.error):
        return text
    reason = shorten(failure.reason, MAX_REASON, "see the log")
    return f"{text}; attempt {failure.attempt} failed with {reason}"


def max_attempts(task: ActivityDetailSchema) -> int | None:
    """Return how often a task is tried at most, as its log or its definition in this process says."""
    failure = previous_failure(task)
    if failure is not None and failure.allowed is not None:
        return max(failure.allowed, task.attempt)
    definition = RUNTIME.definition(task.task_name)
    return None if definition is None else max(definition.retries + 1 + len(task.deaths), task.attempt)
