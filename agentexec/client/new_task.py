"""Options of new tasks, and everything that is checked before the database is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack

from pydantic import BaseModel

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.models import MAX_NAME
from agentexec.activity.queries.labels import checked_metadata, jsonable
from agentexec.arguments.budgets import TaskBudget, checked_limit, checked_policy, dump_budget
from agentexec.arguments.checks import (
    check_flag,
    check_moment,
    check_seconds,
    check_size,
    check_text,
    dump_json,
    first_line,
    has_whole_pairs,
    is_encodable,
    shown,
)
from agentexec.arguments.fairness import MAX_KEY, checked_fairness_key, checked_weight, weight_of
from agentexec.arguments.group_options import MAX_KEY as MAX_LOCK_KEY
from agentexec.arguments.group_options import fill_concurrency_key, fill_key
from agentexec.arguments.key_templates import check_template, fill_template
from agentexec.arguments.queue_names import check_queue_name
from agentexec.arguments.webhooks import check_url
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError, ContextInvalidError, UsageError
from agentexec.journal.canonical import sort_sets_in_text
from agentexec.registry import MAX_TASK_NAME, TaskDefinition, validate_context
from agentexec.runtime import RUNTIME
from agentexec.task import CURRENT_LEASE, Priority, new_agent_id
from agentexec.values.codec import Codec, codec_of
from agentexec.values.comparison import is_flat

Context = Any
"""Context of a task: a pydantic model, a mapping, or another value of the type that the handler takes."""


class TaskOptions(TypedDict, total=False):
    """Options of one or many new tasks; each may be left out."""

    priority: Priority
    """`ax.Priority.HIGH` goes to the front of the queue; `ax.Priority.LOW`, the default, to its back."""

    metadata: Mapping[str, Any] | None
    """Labels stored with the activity, to filter by: texts as keys, JSON values, at most 30 levels deep."""

    delay: float | timedelta | None
    """Seconds (or a timedelta) before the task may start, up to 95 years. A negative one has passed: it starts now."""

    eta: datetime | None
    """Moment from which the task may start, with a time zone, in the years 1970 to 9998. Excludes `delay`."""

    expires: float | timedelta | datetime | None
    """Seconds, a timedelta, or a moment with a time zone: a task that has not started by then is canceled. By default as
    `@pool.task(expires=)` says, if this process has the pool. A task that has started once does not expire."""

    webhook: str | None
    """URL that is sent a signed message when the task has ended. By default as `@pool.task(webhook=)` says, if this process has
    the pool; an empty text for none."""

    queue_name: str | None
    """Queue of the task, up to 100 visible characters without blanks, commas and double quotes, and without a colon and a number
    at the end; by default that of its pool, if this process has it and it names one, else
    `AGENTEXEC_QUEUE_NAME`."""

    lock_key: str | None
    """Lock of the task, such as "user:{user_id}", with fields of the context in braces; by default that of the task's handler.
    Tasks of a queue with the same one run one at a time, first in, first out, on all hosts."""

    fairness_key: str | None
    """Owner of the task, such as "{tenant}", with fields of the context in braces; by default that of the task's handler, if
    this process has it. The tasks of each key take turns with those of the others."""

    fairness_weight: float | None
    """Tasks of the key in each turn, 0.001 to 1000; by default that of the task's handler, or 1."""

    budget: str | None
    """Limit of what the agents of the task may spend, with those of its children, like "$2.00" or "500000 tokens"; by default that
    of the task's handler."""

    on_budget: Literal["fail", "wrap_up", "ask"] | None
    """Policy at the limit of a budget, as for `@pool.task`; by default that of the task's handler, or for a child that of its
    parent, or else "fail"."""

    detached: bool
    """True to let the task continue when the task that enqueues it is canceled. False by default."""


class EnqueueOptions(TaskOptions, total=False):
    """Options of one new task: those of [`ax.TaskOptions`][agentexec.TaskOptions], and these. Each may be left out."""

    idempotency_key: str | None
    """Name of this piece of work, 1 to 200 characters. A second enqueue with the same key returns the first task and
    adds none, unless the first one failed or was canceled: then the new task takes over the key."""

    debounce: float | timedelta | None
    """Seconds (or a timedelta) by which the task waits for further enqueues: these are merged into it, and it runs that long after
    the last one, with the last context. All get the same handle, until it starts. By default as `@pool.task(debounce=)` says, if
    this process has the pool; 0 for none."""

    debounce_key: str | None
    """Enqueues of the task with the same key are merged, such as "doc:{doc_id}", with fields of the context in braces; by default
    all of them."""

    debounce_max: float | timedelta | None
    """Longest time for which further enqueues delay the task; no limit by default."""

    keep_key: bool
    """True to return the first task with this `idempotency_key` also if it failed or was canceled. False by default."""


class NewTasks:
    """Rows of new tasks with one name and the same options, which are checked once.

    The option `detached` is only checked here: it concerns the task that enqueues these. Raises what `enqueue` documents for
    invalid arguments.
    """

    def __init__(self, task_name: str, **options: Unpack[EnqueueOptions]) -> None:
        self._name = task_name = check_text("task_name=", task_name, MAX_TASK_NAME)
        queue = options.get("queue_name")
        queue = RUNTIME.queue_of(task_name) if queue is None else check_queue_name("queue_name=", queue)
        idempotency_key = options.get("idempotency_key")
        if idempotency_key is not None:
            idempotency_key = check_text("idempotency_key=", idempotency_key, MAX_NAME)
        check_flag("detached=", options.get("detached", False))
        run_at = _start_time(options.get("delay"), options.get("eta"))
        self._options = options
        self._definition = definition = RUNTIME.definition(task_name)
        self._has_keys = _has_keys(options, definition)
        tracing = RUNTIME.tracing
        self._template = NewTask(
            agent_id=new_agent_id(),
            task_name=task_name,
            context=None,
            queue=queue,
            priority=_checked_priority(options.get("priority", Priority.LOW)),
            run_at=run_at,
            metadata=checked_metadata(options.get("metadata")),
            idempotency_key=idempotency_key,
            keeps_key=check_flag("keep_key=", options.get("keep_key", False)),
            message=CONF.activity_message_create,
            webhook=_webhook(definition, options.get("webhook")),
            expires_at=_expiry(definition, options.get("expires"), run_at),
            budget=_budget(options),
            trace_context=None if tracing is None else tracing.carrier(task_name, queue or CONF.queue_name),
        )
        self._rest = self._template[3:]

    def task(self, context: Context) -> NewTask:
        """Return the row of a task with a context."""
        text = _checked_context(self._name, context, self._definition)
        # Not by `_replace`, which takes several times as long.
        new = NewTask(new_agent_id(), self._name, text, *self._rest)
        if not self._has_keys:
            return new
        fairness_key, fairness_weight = _fairness(self._name, text, self._options, self._definition)
        lock_key, concurrency_key = _groups(self._name, text, self._options, self._definition)
        return new._replace(
            fairness_key=fairness_key,
            fairness_weight=fairness_weight,
            lock_key=lock_key,
            concurrency_key=concurrency_key,
        )


def new_task(task_name: str, context: Context, **options: Unpack[EnqueueOptions]) -> NewTask:
    """Return the row of a new task; raises what `enqueue` documents for invalid arguments."""
    return NewTasks(task_name, **options).task(context)


def _has_keys(options: EnqueueOptions, definition: TaskDefinition | None) -> bool:
    """Return True if tasks have keys, most of which their contexts fill."""
    if any(options.get(name) is not None for name in ("fairness_key", "fairness_weight", "lock_key")):
        return True
    return definition is not None and (
        definition.fairness_key is not None
        or definition.lock_key is not None
        or definition.concurrency is not None
    )


def _budget(options: TaskOptions) -> str | None:
    """Return the budget that the call gives; that of the task's definition is known where it runs."""
    limit, policy = options.get("budget"), options.get("on_budget")
    if limit is None and policy is None:
        return None
    return dump_budget(TaskBudget(checked_limit("budget=", limit), checked_policy("on_budget=", policy)))


def _groups(
    task_name: str, context: str | None, options: TaskOptions, definition: TaskDefinition | None
) -> tuple[str | None, str | None]:
    """Return the keys of a task's lock and limit."""
    template = options.get("lock_key")
    if template is not None:
        template = check_template("lock_key=", template, MAX_LOCK_KEY)
    elif definition is not None:
        template = definition.lock_key
    limit, key = (None, None) if definition is None else (definition.concurrency, definition.concurrency_key)
    lock_key = fill_key("lock_key", task_name, template, context)
    return lock_key, fill_concurrency_key(task_name, limit, key, context)


def _fairness(
    task_name: str, context: str | None, options: TaskOptions, definition: TaskDefinition | None
) -> tuple[str | None, float]:
    """Return the fairness key and weight of a task: those of the call, or else of its definition."""
    template = checked_fairness_key("fairness_key=", options.get("fairness_key"))
    if template is None and definition is not None:
        template = definition.fairness_key
    given = options.get("fairness_weight")
    if template is None:
        if given is not None:
            raise UsageError("fairness_weight= needs a fairness_key=, in the call or on the task.")
        return None, 1.0
    key = fill_template(f"The fairness_key of task {task_name}", template, context, MAX_KEY)
    if given is not None:
        return key, checked_weight("fairness_weight=", given)
    return key, 1.0 if definition is None else weight_of(key, definition.fairness_weight)


def _checked_priority(priority: Any) -> Priority:
    try:
        if isinstance(priority, bool):
            raise ValueError
        return Priority(priority)
    except Exception:
        raise UsageError(
            f"priority= must be ax.Priority.HIGH or ax.Priority.LOW, not {shown(priority)}."
        ) from None


def _checked_context(task_name: str, context: Context, definition: TaskDefinition | None) -> str | None:
    """Return the context as JSON text; whatever the objects in it raise becomes an error of ours."""
    what = f"The context of task {task_name}"
    try:
        text = _dump_context(task_name, context, definition)
    except AgentexecError:
        raise
    except RecursionError:
        raise UsageError(f"{what} is nested too deeply, or contains itself.") from None
    except Exception as error:
        raise ContextInvalidError(f"{what} cannot be written as JSON: {first_line(error)}.") from None
    if text is not None and not (is_encodable(text) and has_whole_pairs(text)):
        raise UsageError(f"{what} holds half of a surrogate pair, which no database can store.")
    return text


def _dump_context(task_name: str, context: Context, definition: TaskDefinition | None) -> str | None:
    what = f"The context of task {task_name}"
    codec = _own_codec(context, what) if definition is None else definition.context
    if definition is not None:
        # Inputs that the type accepts are made values of it here, where the caller learns of what does not fit.
        context = validate_context(definition, context)
    if context is None:
        return None
    if codec.is_any and not (isinstance(context, BaseModel | Mapping) or dataclasses.is_dataclass(context)):
        raise UsageError(
            f"{what} must be a pydantic model, a data class or a mapping, not {type(context).__name__}; other values need "
            "a handler that is registered in this process and names their type."
        )
    text = _context_text(codec, context, what)
    check_payload_size(text, what)
    if CURRENT_LEASE.get() is None or not codec.may_hold_sets:
        return text
    # A child is known by its context, which must be the same text in another process.
    return sort_sets_in_text(context, text)


def _own_codec(context: Any, what: str) -> Codec:
    """Return the codec of a context's own type, for a task that this process does not know."""
    if isinstance(context, BaseModel) or (
        dataclasses.is_dataclass(context) and not isinstance(context, type)
    ):
        try:
            return codec_of(type(context))
        except UsageError as error:
            raise UsageError(f"{what} cannot be written as JSON: {error}.") from None
    return codec_of(Any)


def _context_text(codec: Codec, context: Any, what: str) -> str:
    """Return a context as JSON that comes back; a mapping in the form in which children have always been known."""
    if isinstance(context, Mapping):
        try:
            text = dump_json(what, dict(context), jsonable)
            if codec.is_any and is_flat(context):
                return text
            if codec.find_difference(context, text) is None:
                return text
        except (AgentexecError, TypeError, ValueError, RecursionError):
            pass
    return codec.dump(context, what)


def check_payload_size(text: str, what: str) -> None:
    """Raise PayloadTooLargeError if a JSON text is above AGENTEXEC_MAX_PAYLOAD_BYTES."""
    check_size(what, text, CONF.max_payload_bytes)


def _start_time(delay: float | timedelta | None, eta: datetime | None) -> datetime | None:
    """Return the moment from which a task may start; None for at once."""
    if delay is not None and eta is not None:
        raise UsageError("Give either delay= or eta=, not both.")
    if eta is not None:
        return check_moment("eta=", eta)
    if delay is None:
        return None
    wait = check_seconds("delay=", delay)
    return utc_now() + timedelta(seconds=wait) if wait > 0 else None


def _webhook(definition: TaskDefinition | None, url: str | None) -> str | None:
    if url is None:
        return None if definition is None else definition.webhook
    return None if url == "" else check_url("webhook=", url)


def _expiry(
    definition: TaskDefinition | None,
    expires: float | timedelta | datetime | None,
    run_at: datetime | None,
) -> datetime | None:
    """Return the moment by which a task must have started; None for no limit."""
    if expires is None:
        if definition is None or definition.expires is None:
            return None
        # From its due time: a limit on the wait in the queue must not end every delayed task.
        return (run_at or utc_now()) + timedelta(seconds=definition.expires)
    if isinstance(expires, datetime):
        moment = check_moment("expires=", expires)
    else:
        moment = utc_now() + timedelta(seconds=check_seconds("expires=", expires))
    if run_at is not None and moment <= run_at:
        raise UsageError("expires= ends before delay= or eta= lets the task start, so it would never run.")
    return moment
