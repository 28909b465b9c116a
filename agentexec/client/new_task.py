"""Tasks as they are asked for: everything that can be checked before the database is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.models import MAX_NAME, MAX_QUEUE_NAME
from agentexec.activity.queries.labels import check_label_count
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import PayloadTooLargeError, UsageError
from agentexec.registry import MAX_TASK_NAME, validate_context
from agentexec.runtime import RUNTIME
from agentexec.task import Priority, new_agent_id

MASK = "*" * 10
"""What pydantic writes in the place of a secret."""

Context = BaseModel | Mapping[str, Any] | None


def new_task(
    task_name: str,
    context: Context,
    *,
    priority: Priority = Priority.LOW,
    metadata: Mapping[str, Any] | None = None,
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    idempotency_key: str | None = None,
    queue_name: str | None = None,
) -> NewTask:
    """A task from the arguments of `enqueue`; raises what `enqueue` says of them."""
    queue = queue_name or CONF.queue_name
    for what, value, most in (
        ("task name", task_name, MAX_TASK_NAME),
        ("queue name", queue, MAX_QUEUE_NAME),
        ("idempotency key", idempotency_key or "", MAX_NAME),
    ):
        if len(value) > most or "\x00" in value:
            raise UsageError(f"A {what} has at most {most} characters; this one has {len(value)}.")
    if not task_name:
        raise UsageError("A task name is needed.")
    return NewTask(
        agent_id=new_agent_id(),
        task_name=task_name,
        context=_dump_context(task_name, context),
        queue=queue,
        priority=Priority(priority),
        run_at=_moment(delay, eta),
        metadata=_checked_metadata(metadata),
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
    if MASK in text and (field := _masked(context)) is not None:
        raise UsageError(
            f"The context of task {task_name} holds a secret in {field}, which would be stored as {MASK}: pass a "
            "reference that the handler looks the secret up by, or read it from the worker's environment."
        )
    check_payload_size(text, f"The context of task {task_name}")
    return text


def _masked(value: Any, path: str = "") -> str | None:
    """Where in a context a secret of pydantic's stands, as a path; None if nowhere."""
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
    found = (_masked(part, f"{path}.{name}" if path else str(name)) for name, part in parts)
    return next((one for one in found if one is not None), None)


def _checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if metadata is None:
        return None
    text = _dump_json(metadata, "The metadata")
    check_payload_size(text, "The metadata")
    if "\\u0000" in text:
        raise UsageError("The metadata holds a NUL character, which PostgreSQL cannot store; remove it.")
    kept = json.loads(text)
    check_label_count(kept)
    return kept


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
    raise TypeError(f"{type(value).__name__} is no JSON value")


def check_payload_size(text: str, what: str) -> None:
    """Raise PayloadTooLargeError if a JSON text is above AGENTEXEC_MAX_PAYLOAD_BYTES."""
    most = CONF.max_payload_bytes
    # A character is at most four bytes: most texts need not be encoded to be measured.
    if len(text) * 4 > most and (size := len(text.encode("utf-8", "replace"))) > most:
        raise PayloadTooLargeError(
            f"{what} is {size} bytes of JSON, above AGENTEXEC_MAX_PAYLOAD_BYTES={most}; store it elsewhere and pass "
            "a reference, or raise the limit."
        )


def _moment(delay: float | timedelta | None, eta: datetime | None) -> datetime | None:
    if delay is not None and eta is not None:
        raise UsageError("Give either delay= or eta=, not both.")
    if eta is not None:
        if eta.tzinfo is None:
            raise UsageError(
                "eta= must be aware of its time zone, like datetime.now(UTC) + timedelta(hours=1)."
            )
        return eta.astimezone(UTC)
    if delay is None:
        return None
    wait = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    return utc_now() + wait if wait > timedelta() else None
