"""Options of new tasks, and everything that is checked before the database is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.models import MAX_NAME, MAX_QUEUE_NAME
from agentexec.activity.queries.labels import check_label_count
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import PayloadTooLargeError, UsageError
from agentexec.journal.canonical import sort_sets_in_text
from agentexec.registry import MAX_TASK_NAME, validate_context
from agentexec.runtime import RUNTIME
from agentexec.task import Priority, new_agent_id

MASK = "*" * 10
"""Text that pydantic writes in place of a secret."""

Context = BaseModel | Mapping[str, Any] | None


class TaskOptions(TypedDict, total=False):
    """Options of one or many new tasks; each may be left out."""

    priority: Priority
    """`ax.Priority.HIGH` goes to the front of the queue; `ax.Priority.LOW`, the default, to its back."""

    metadata: Mapping[str, Any] | None
    """Labels stored with the activity, to filter by."""

    delay: float | timedelta | None
    """Seconds (or a timedelta) before the task may start."""

    eta: datetime | None
    """Moment from which the task may start, with a time zone. Excludes `delay`."""

    queue_name: str | None
    """Queue of the task; `AGENTEXEC_QUEUE_NAME` by default."""

    detached: bool
    """True to let the task continue when the task that enqueues it is canceled. False by default."""


class EnqueueOptions(TaskOptions, total=False):
    """Options of one new task: those of [`ax.TaskOptions`][agentexec.TaskOptions], and these. Each may be left out."""

    idempotency_key: str | None
    """Name of this piece of work. A second enqueue with the same key returns the first task and adds none."""


def new_task(task_name: str, context: Context, **options: Unpack[EnqueueOptions]) -> NewTask:
    """Return the row of a new task; raises what `enqueue` documents for invalid arguments.

    The option `detached` is not used here: it concerns the task that enqueues this one.
    """
    queue = options.get("queue_name") or CONF.queue_name
    idempotency_key = options.get("idempotency_key")
    for what, value, limit in (
        ("task name", task_name, MAX_TASK_NAME),
        ("queue name", queue, MAX_QUEUE_NAME),
        ("idempotency key", idempotency_key or "", MAX_NAME),
    ):
        if len(value) > limit or "\x00" in value:
            raise UsageError(f"A {what} has at most {limit} characters; this one has {len(value)}.")
    if not task_name:
        raise UsageError("A task name is needed.")
    return NewTask(
        agent_id=new_agent_id(),
        task_name=task_name,
        context=_dump_context(task_name, context),
        queue=queue,
        priority=Priority(options.get("priority", Priority.LOW)),
        run_at=_start_time(options.get("delay"), options.get("eta")),
        metadata=_checked_metadata(options.get("metadata")),
        idempotency_key=idempotency_key,
        message=CONF.activity_message_create,
    )


def _dump_context(task_name: str, context: Context) -> str | None:
    definition = RUNTIME.definition(task_name)
    if definition is not None and (context is not None or definition.context_type is not None):
        context = validate_context(definition, {} if context is None else context)
    if context is None:
        return None
    if isinstance(context, BaseModel):
        text = context.model_dump_json()
    else:
        text = _dump_json(context, f"The context of task {task_name}")
    if MASK in text and (field := _path_of_secret(context)) is not None:
        raise UsageError(
            f"The context of task {task_name} holds a secret in {field}, which would be stored as {MASK}: pass a "
            "reference that the handler looks the secret up by, or read it from the worker's environment."
        )
    # A child is known by its context, which must be the same text in another process.
    text = sort_sets_in_text(context, text)
    check_payload_size(text, f"The context of task {task_name}")
    return text


def _path_of_secret(value: Any, path: str = "") -> str | None:
    """Return the path to the first pydantic secret in a context, or None."""
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return None if value.get_secret_value() in ("", b"") else path
    if isinstance(value, BaseModel):
        parts = [*value.__dict__.items(), *(value.__pydantic_extra__ or {}).items()]
    elif isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(enumerate(value))
    else:
        return None
    paths = (_path_of_secret(part, f"{path}.{name}" if path else str(name)) for name, part in parts)
    return next((found for found in paths if found is not None), None)


def _checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if metadata is None:
        return None
    text = _dump_json(metadata, "The metadata")
    check_payload_size(text, "The metadata")
    if "\\u0000" in text:
        raise UsageError("The metadata holds a NUL character, which PostgreSQL cannot store; remove it.")
    stored = json.loads(text)
    check_label_count(stored)
    return stored


def _dump_json(value: Mapping[str, Any], what: str) -> str:
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} must be a pydantic model or a mapping, not {type(value).__name__}.")
    try:
        return json.dumps(dict(value), default=_jsonable, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} cannot be written as JSON: {error}.") from None


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def check_payload_size(text: str, what: str) -> None:
    """Raise PayloadTooLargeError if a JSON text is above AGENTEXEC_MAX_PAYLOAD_BYTES."""
    limit = CONF.max_payload_bytes
    # A character takes at most four bytes, so most texts need not be encoded to be measured.
    if len(text) * 4 > limit and (size := len(text.encode("utf-8", "replace"))) > limit:
        raise PayloadTooLargeError(
            f"{what} is {size} bytes of JSON, above AGENTEXEC_MAX_PAYLOAD_BYTES={limit}; store it elsewhere and pass "
            "a reference, or raise the limit."
        )


def _start_time(delay: float | timedelta | None, eta: datetime | None) -> datetime | None:
    """Return the moment from which a task may start; None for at once."""
    if delay is not None and eta is not None:
        raise UsageError("Give either delay= or eta=, not both.")
    if eta is not None:
        if eta.tzinfo is None:
            raise UsageError("eta= must have a time zone, like datetime.now(UTC) + timedelta(hours=1).")
        return eta.astimezone(UTC)
    if delay is None:
        return None
    wait = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    return utc_now() + wait if wait > timedelta() else None
