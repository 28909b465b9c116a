"""Accepting tasks: the record first, in one transaction, then the push to the state backend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.activity.changes.stores import record_store
from agentexec.activity.models import Activity
from agentexec.client.backend_check import BackendCheck
from agentexec.client.intake import Intake
from agentexec.client.new_task import Context, new_task
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.errors import translating_db_errors
from agentexec.db.round_trips import batched
from agentexec.db.transactions import reading, writing
from agentexec.errors import SchemaError, UnavailableError, UsageError
from agentexec.journal.children import candidate_ids, choose_children
from agentexec.journal.recorder import Scope, current_scope
from agentexec.journal.store import require_lease
from agentexec.runtime import RUNTIME
from agentexec.schema.migrate import upgrade
from agentexec.task import Entry, Priority, Task

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

log = logging.getLogger("agentexec.queue")

BATCH_SIZE = 500
"""Tasks in one transaction of `enqueue_many`."""

PUSHES = "agentexec_pushes"
"""Key in a session's `info`: what is to be pushed after its commit."""


async def enqueue(
    task_name: str,
    context: Context = None,
    *,
    priority: Priority = Priority.LOW,
    metadata: Mapping[str, Any] | None = None,
    session: Session | scoped_session[Session] | AsyncSession | None = None,
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    idempotency_key: str | None = None,
    queue_name: str | None = None,
    detached: bool = False,
) -> Task:
    """Accept a task; once this returns, the task will reach an end whatever crashes.

    The task need not be registered in this process. If it is, the context is validated against its type.

    `priority`: HIGH goes to the front of the queue. `metadata`: labels stored with the activity, to filter by.
    `session`: enqueue within the caller's own transaction on the same database; the task exists once that
    commits. `delay`: seconds (or a timedelta) before it may start; `eta`: the aware moment from which it may.
    `idempotency_key`: a second enqueue with the same key returns the first task instead of adding one.
    `queue_name`: another queue than AGENTEXEC_QUEUE_NAME.

    Inside a task the new one is its child: canceled with it, unless `detached`, and found again instead of enqueued
    twice when the handler runs again and comes to the same place with the same context.

    Raises ContextInvalidError, PayloadTooLargeError, UsageError, and UnavailableError when the database cannot
    be reached. An unreachable Redis does not fail the call: the record has the task, and the reconciler
    pushes it when Redis is back.
    """
    new = new_task(
        task_name,
        context,
        priority=priority,
        metadata=metadata,
        delay=delay,
        eta=eta,
        idempotency_key=idempotency_key,
        queue_name=queue_name,
    )
    scope = current_scope()
    if session is None and scope is not None:
        return (await RUNTIME.run_in_thread(_accept_children, scope, [new], detached))[0]
    if session is None:
        intake = _intake()
        done, must_run = intake.put(new)
        if must_run:
            RUNTIME.submit(intake.run)
        try:
            await asyncio.wrap_future(done)
        except IntegrityError:
            return await RUNTIME.run_in_thread(_first_with_key, new)
        return _handle(new)
    if isinstance(session, scoped_session):
        session = session()  # here: the thread below has another one
    if isinstance(session, Session):
        return await RUNTIME.run_in_thread(_join, session, new, scope, detached)
    return await session.run_sync(_join, new, scope, detached)


def enqueue_sync(
    task_name: str,
    context: Context = None,
    *,
    priority: Priority = Priority.LOW,
    metadata: Mapping[str, Any] | None = None,
    session: Session | scoped_session[Session] | None = None,
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    idempotency_key: str | None = None,
    queue_name: str | None = None,
    detached: bool = False,
) -> Task:
    """`enqueue` for code without an event loop: the same arguments, result and errors."""
    new = new_task(
        task_name,
        context,
        priority=priority,
        metadata=metadata,
        delay=delay,
        eta=eta,
        idempotency_key=idempotency_key,
        queue_name=queue_name,
    )
    scope = current_scope()
    if session is not None:
        # What listens on a scoped session listens on every session that its factory makes.
        one = session() if isinstance(session, scoped_session) else session
        return _join(one, new, scope, detached)
    return _accept(new) if scope is None else _accept_children(scope, [new], detached)[0]


async def enqueue_many(
    task_name: str,
    contexts: Iterable[Context],
    *,
    priority: Priority = Priority.LOW,
    metadata: Mapping[str, Any] | None = None,
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    queue_name: str | None = None,
    detached: bool = False,
) -> list[Task]:
    """Accept many tasks of one name, 500 in each transaction and push; returns them in order.

    Every context is checked before the first is accepted. If the database goes away half-way, the batches
    before stay accepted. Arguments and errors as for `enqueue`.
    """
    tasks = [
        new_task(
            task_name,
            context,
            priority=priority,
            metadata=metadata,
            delay=delay,
            eta=eta,
            queue_name=queue_name,
        )
        for context in contexts
    ]
    accepted: list[Task] = []
    scope = current_scope()
    for start in range(0, len(tasks), BATCH_SIZE):
        batch = tasks[start : start + BATCH_SIZE]
        if scope is not None:
            accepted.extend(await RUNTIME.run_in_thread(_accept_children, scope, batch, detached))
        else:
            await RUNTIME.run_in_thread(_accept_batch, batch)
            accepted.extend(_handle(task) for task in batch)
    return accepted


def _handle(new: NewTask) -> Task:
    return Task.model_construct(agent_id=new.agent_id, task_name=new.task_name, queue_name=new.queue or "")


def entry_of(new: NewTask) -> Entry:
    """What the state backend needs to know of a task."""
    return Entry(new.agent_id, Priority(new.priority), new.run_at.timestamp() if new.run_at else 0.0)


def _intake() -> Intake:
    return RUNTIME.get_shared(Intake, lambda: Intake(_accept_batch))


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


def _accept_children(scope: Scope, batch: Sequence[NewTask], detached: bool) -> list[Task]:
    """Record and push tasks that a task enqueues, or find those that an earlier attempt of it has enqueued.

    Raises LeaseLostError if the task is another worker's by now, or was canceled.
    """
    places = [candidate_ids(scope, new) for new in batch]
    RUNTIME.get_shared(BackendCheck, BackendCheck).check(batch[0].queue or CONF.queue_name)
    return _write_children(scope, batch, places, detached)


@retry_on_deadlock
def _write_children(
    scope: Scope, batch: Sequence[NewTask], places: Sequence[Sequence[UUID]], detached: bool
) -> list[Task]:
    parent = scope.recorder.lease
    try:
        with writing(RUNTIME.engine) as connection:
            # Its row is locked until the commit: a cancel of the task comes before, or finds the children.
            require_lease(connection, parent)
            chosen = choose_children(connection, scope, batch, places, detached)
            known = [_find_by_key(connection, new.idempotency_key) for new in batch]
            fresh = [new for new, there in zip(chosen, known, strict=True) if new.is_new and there is None]
            push = _write(connection, [one.task for one in fresh]) if fresh else None
    except IntegrityError:
        # Somebody else has taken an idempotency key in this moment: now it is found.
        if len(batch) == 1 and batch[0].idempotency_key is not None:
            return [_first_with_key(batch[0])]
        raise
    if push is not None:
        push()
    return [there or _handle(one.task) for one, there in zip(chosen, known, strict=True)]


def _record_and_push(batch: Sequence[NewTask]) -> None:
    RUNTIME.get_shared(BackendCheck, BackendCheck).check(batch[0].queue or CONF.queue_name)
    backend, store = RUNTIME.backend, record_store()
    queue, entries = batch[0].queue or CONF.queue_name, [entry_of(new) for new in batch]
    if backend.transactional:
        store.insert(
            batch, utc_now(), push=lambda connection: backend.push(queue, entries, transaction=connection)
        )
        backend.wake(queue, len(entries))
    else:
        store.insert(batch, utc_now())
        _push(queue, entries)


def enqueue_in_transaction(connection: Connection, new: NewTask) -> Callable[[], None]:
    """Enqueue within a transaction of agentexec's own; returns what is to be called after its commit."""
    return _write(connection, [new])


def _write(connection: Connection, batch: Sequence[NewTask]) -> Callable[[], None]:
    """Write tasks within a transaction; returns what is to be called after its commit."""
    backend = RUNTIME.backend
    queue = batch[0].queue or CONF.queue_name
    entries = [entry_of(new) for new in batch]
    with batched(connection):
        insert_tasks(connection, batch, utc_now())
        if backend.transactional:
            backend.push(queue, entries, transaction=connection)
    if backend.transactional:
        return lambda: backend.wake(queue, len(entries))
    return lambda: _push(queue, entries)


def _push(queue: str, entries: Sequence[Entry]) -> None:
    """Push accepted tasks. The record has them: if this fails, the reconciler pushes them later."""
    try:
        RUNTIME.backend.push(queue, entries)
    except UnavailableError as error:
        log.warning("%s %d accepted task(s) will be pushed when it is back.", error, len(entries))


def _join(session: Session, new: NewTask, scope: Scope | None, detached: bool) -> Task:
    """Write a task within the transaction of a session; its push follows the commit."""
    with translating_db_errors(RUNTIME.engine):
        connection = session.connection()
        known = _find_by_key(connection, new.idempotency_key)
        if known is not None:
            return known
        if scope is not None:
            [child] = choose_children(connection, scope, [new], [candidate_ids(scope, new)], detached)
            new = child.task
            if not child.is_new:
                return _handle(new)
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
