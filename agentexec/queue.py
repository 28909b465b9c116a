"""Accepting tasks: the record first, in one transaction, then the push to the state backend."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, SessionTransaction

from agentexec.activity.models import MAX_NAME, MAX_QUEUE_NAME, Activity
from agentexec.activity.transitions import NewTask, insert_tasks
from agentexec.config import CONF
from agentexec.db import outages_named, reading, utc_now, writing
from agentexec.deployment import BackendCheck
from agentexec.errors import PayloadTooLargeError, SchemaError, UnavailableError, UsageError
from agentexec.intake import Intake
from agentexec.migrate import upgrade
from agentexec.registry import MAX_TASK_NAME, validate_context
from agentexec.runtime import RUNTIME
from agentexec.task import Entry, Priority, Task, new_agent_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

log = logging.getLogger("agentexec.queue")

BATCH = 500
"""Tasks in one transaction of `enqueue_many`."""

PUSHES = "agentexec_pushes"
"""Key in a session's `info`: what is to be pushed after its commit."""

Context = BaseModel | Mapping[str, Any] | None


async def enqueue(
    task_name: str,
    context: Context = None,
    *,
    priority: Priority = Priority.LOW,
    metadata: Mapping[str, Any] | None = None,
    session: Session | AsyncSession | None = None,
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    idempotency_key: str | None = None,
    queue_name: str | None = None,
) -> Task:
    """Accept a task; once this returns, the task will reach an end whatever crashes.

    The task need not be registered in this process. If it is, the context is validated against its type.

    `priority`: HIGH goes to the front of the queue. `metadata`: labels stored with the activity, to filter by.
    `session`: enqueue within the caller's own transaction on the same database; the task exists once that
    commits. `delay`: seconds (or a timedelta) before it may start; `eta`: the aware moment from which it may.
    `idempotency_key`: a second enqueue with the same key returns the first task instead of adding one.
    `queue_name`: another queue than AGENTEXEC_QUEUE_NAME.

    Raises ContextInvalidError, PayloadTooLargeError, UsageError, and UnavailableError when the database cannot
    be reached. An unreachable Redis does not fail the call: the record has the task, and the reconciler
    pushes it when Redis is back.
    """
    new = _new_task(task_name, context, priority, metadata, delay, eta, idempotency_key, queue_name)
    if session is None:
        intake = _intake()
        done, must_run = intake.put(new)
        if must_run:
            RUNTIME.submit(intake.run)
        try:
            await asyncio.wrap_future(done)
        except IntegrityError:
            return await RUNTIME.in_thread(_first_with_key, new)
        return _handle(new)
    if isinstance(session, Session):
        return await RUNTIME.in_thread(_join, session, new)
    return await session.run_sync(_join, new)


def enqueue_sync(
    task_name: str,
    context: Context = None,
    *,
    priority: Priority = Priority.LOW,
    metadata: Mapping[str, Any] | None = None,
    session: Session | None = None,
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    idempotency_key: str | None = None,
    queue_name: str | None = None,
) -> Task:
    """`enqueue` for code without an event loop: the same arguments, result and errors."""
    new = _new_task(task_name, context, priority, metadata, delay, eta, idempotency_key, queue_name)
    return _accept(new) if session is None else _join(session, new)


async def enqueue_many(
    task_name: str,
    contexts: Iterable[Context],
    *,
    priority: Priority = Priority.LOW,
    metadata: Mapping[str, Any] | None = None,
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    queue_name: str | None = None,
) -> list[Task]:
    """Accept many tasks of one name, 500 in each transaction and push; returns them in order.

    Every context is checked before the first is accepted. If the database goes away half-way, the batches
    before stay accepted. Arguments and errors as for `enqueue`.
    """
    tasks = [
        _new_task(task_name, context, priority, metadata, delay, eta, None, queue_name)
        for context in contexts
    ]
    accepted: list[Task] = []
    for start in range(0, len(tasks), BATCH):
        batch = tasks[start : start + BATCH]
        await RUNTIME.in_thread(_accept_batch, batch)
        accepted.extend(_handle(task) for task in batch)
    return accepted


def _new_task(
    task_name: str,
    context: Context,
    priority: Priority,
    metadata: Mapping[str, Any] | None,
    delay: float | timedelta | None,
    eta: datetime | None,
    idempotency_key: str | None,
    queue_name: str | None,
) -> NewTask:
    """Check everything that can be checked before the database is asked."""
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
    require_size(text, f"The context of task {task_name}")
    return text


def _checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if metadata is None:
        return None
    text = _dump_json(metadata, "The metadata")
    require_size(text, "The metadata")
    if "\\u0000" in text:
        raise UsageError("The metadata holds a NUL character, which PostgreSQL cannot store; remove it.")
    return json.loads(text)


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


def require_size(text: str, what: str) -> None:
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


def _handle(new: NewTask) -> Task:
    return Task.model_construct(agent_id=new.agent_id, task_name=new.task_name, queue_name=new.queue or "")


def entry_of(new: NewTask) -> Entry:
    """What the state backend needs to know of a task."""
    return Entry(new.agent_id, Priority(new.priority), new.run_at.timestamp() if new.run_at else 0.0)


def _intake() -> Intake:
    return RUNTIME.shared(Intake, lambda: Intake(_accept_batch))


def _accept(new: NewTask) -> Task:
    intake = _intake()
    done, must_run = intake.put(new)
    if must_run and not intake.run(until=done):
        RUNTIME.submit(intake.run)
    try:
        done.result()
    except IntegrityError:
        return _first_with_key(new)
    return _handle(new)


def _first_with_key(new: NewTask) -> Task:
    """The task that has taken the idempotency key of this one."""
    with reading(RUNTIME.engine) as connection:
        known = _find_by_key(connection, new.idempotency_key)
    if known is None:
        raise UsageError(
            f"The task {new.task_name} could not be recorded: its idempotency key is taken, and gone."
        )
    return known


def _accept_batch(batch: Sequence[NewTask]) -> None:
    """Record tasks of one queue and push them."""
    try:
        _record_and_push(batch)
    except SchemaError:
        if not RUNTIME.embedded:
            raise
        # The embedded database is ours alone: whoever comes first makes it.
        upgrade(RUNTIME.engine)
        _record_and_push(batch)


def _record_and_push(batch: Sequence[NewTask]) -> None:
    RUNTIME.shared(BackendCheck, BackendCheck).check(batch[0].queue or CONF.queue_name)
    with writing(RUNTIME.engine, finding=False) as connection:
        push = _write(connection, batch)
    push()


def _write(connection: Connection, batch: Sequence[NewTask]) -> Callable[[], None]:
    """Write tasks within a transaction; returns what is to be called after its commit."""
    backend = RUNTIME.backend
    queue = batch[0].queue or CONF.queue_name
    entries = [entry_of(new) for new in batch]
    insert_tasks(connection, batch, utc_now())
    if backend.transactional:
        backend.push(queue, entries, within=connection)
        return lambda: backend.wake(queue, len(entries))
    return lambda: _push(queue, entries)


def _push(queue: str, entries: Sequence[Entry]) -> None:
    """Push accepted tasks. The record has them: if this fails, the reconciler pushes them later."""
    try:
        RUNTIME.backend.push(queue, entries)
    except UnavailableError as error:
        log.warning("%s %d accepted task(s) will be pushed when it is back.", error, len(entries))


def _join(session: Session, new: NewTask) -> Task:
    """Write a task within the transaction of a session; its push follows the commit."""
    with outages_named(RUNTIME.engine):
        connection = session.connection()
        known = _find_by_key(connection, new.idempotency_key)
        if known is not None:
            return known
        push = _write(connection, [new])
    _after_commit(session, push)
    return _handle(new)


def _after_commit(session: Session, push: Callable[[], None]) -> None:
    """Call `push` once the outermost transaction of a session has committed; never if it is rolled back.

    A savepoint that is rolled back alone leaves a push of a task that has no record: workers drop those.
    """
    if PUSHES not in session.info:
        event.listen(session, "after_commit", _push_committed)
        event.listen(session, "after_soft_rollback", _drop_rolled_back)
    session.info.setdefault(PUSHES, []).append(push)


def _push_committed(session: Session) -> None:
    if session.in_nested_transaction():
        return
    pushes, session.info[PUSHES] = session.info[PUSHES], []
    if pushes:
        # In a thread: an AsyncSession's commit runs on the event loop. One after the other: they keep their order.
        RUNTIME.submit(lambda: [push() for push in pushes])


def _drop_rolled_back(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[PUSHES] = []


def _find_by_key(connection: Connection, idempotency_key: str | None) -> Task | None:
    if idempotency_key is None:
        return None
    query = select(Activity.agent_id, Activity.agent_type, Activity.queue)
    row = connection.execute(query.where(Activity.idempotency_key == idempotency_key)).one_or_none()
    if row is None:
        return None
    return Task(agent_id=row.agent_id, task_name=row.agent_type, queue_name=row.queue or "")
