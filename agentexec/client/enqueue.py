"""Accepting tasks: the record first, in one transaction, then the push to the state backend."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Unpack

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session

from agentexec.activity.changes.new_tasks import NewTask, insert_tasks, with_context, with_context_async
from agentexec.activity.changes.session import call_after_commit
from agentexec.activity.changes.stores import record_store
from agentexec.arguments.checks import check_iterable
from agentexec.client.backend_check import BackendCheck
from agentexec.client.debounce import new_debounced_task
from agentexec.client.intake import Intake, naming_refusals, with_tables
from agentexec.client.keys import contended_key, find_holder
from agentexec.client.new_task import Context, EnqueueOptions, NewTasks, TaskOptions
from agentexec.client.sending import traced
from agentexec.config import CONF
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.errors import translating_db_errors
from agentexec.db.round_trips import batched
from agentexec.db.transactions import writing
from agentexec.errors import UsageError
from agentexec.journal.scopes import current_scope
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.state.groups import SupportsGroups
from agentexec.task import Entry, Priority, Task, groups_of, require_known_options

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentexec.journal.children import Place
    from agentexec.journal.recorder import Scope

log = logging.getLogger("agentexec.queue")

KEY_TRIES = 5
"""Times that an enqueue looks for the holder of its idempotency key, if others take and lose the key meanwhile."""


@traced
async def enqueue(
    task_name: str,
    context: Context = None,
    *,
    session: Session | scoped_session[Session] | AsyncSession | None = None,
    **options: Unpack[EnqueueOptions],
) -> Task:
    """Accept a task. Once this returns, the task reaches an end, whatever crashes.

    The task need not be registered in this process. If it is, the context is validated against its type.

    Inside a task the new task is its child: it is canceled with its parent, unless it is `detached`. When the parent
    runs again and comes to the same place with the same context, it finds the child instead of enqueuing another one.

    An unreachable Redis does not fail the call: the task is in the database, and the reconciler pushes it when Redis
    is back.

    Args:
        task_name: Name of the task, as in `@pool.task(name)`.
        context: Input of the task: a pydantic model, or a mapping that can be written as JSON.
        session: Session of the application, on the same database. The task is written in its transaction and exists
            once that is committed.
        **options: See [`ax.EnqueueOptions`][agentexec.EnqueueOptions].

    Returns:
        The handle of the task.

    Raises:
        ContextInvalidError: The context does not fit the type of the task.
        PayloadTooLargeError: The context or the metadata is above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UsageError: Another argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    require_known_options("enqueue", options, accepts=EnqueueOptions)
    _check_session(session, Session, scoped_session, has="run_sync")
    new = new_debounced_task(task_name, context, options)
    # A task into which others may be merged is nobody's child.
    detached = options.get("detached", False) or new.debounce_key is not None
    scope = current_scope()
    if session is None and scope is not None:
        return (await RUNTIME.run_patiently(ChildBatch(scope, [new], detached).accept))[0]
    if session is None and new.debounce_key is not None:
        return await RUNTIME.run_in_thread(_accept_debounced, new)
    if session is None:
        intake = _intake()
        done, must_run = intake.put(await with_context_async(new))
        if must_run:
            RUNTIME.submit(intake.run)
        try:
            await asyncio.wrap_future(done)
        except IntegrityError:
            return await RUNTIME.run_in_thread(_first_with_key, new)
        return _handle(new)
    if isinstance(session, scoped_session):
        session = session()  # here, because the thread below has another session
    if isinstance(session, Session):
        return await RUNTIME.run_in_thread(_join, session, new, scope, detached)
    return await session.run_sync(_join, new, scope, detached)


@traced
def enqueue_sync(
    task_name: str,
    context: Context = None,
    *,
    session: Session | scoped_session[Session] | None = None,
    **options: Unpack[EnqueueOptions],
) -> Task:
    """Accept a task: `enqueue` for code without an event loop, with the same arguments, result and errors."""
    require_known_options("enqueue_sync", options, accepts=EnqueueOptions)
    _check_session(session, Session, scoped_session)
    new = new_debounced_task(task_name, context, options)
    # A task into which others may be merged is nobody's child.
    detached = options.get("detached", False) or new.debounce_key is not None
    scope = current_scope()
    if session is not None:
        # A listener on a scoped session would listen on every session that its factory makes.
        own_session = session() if isinstance(session, scoped_session) else session
        return _join(own_session, new, scope, detached)
    return _accept(new) if scope is None else wait_out(ChildBatch(scope, [new], detached).accept)[0]


@traced
async def enqueue_many(
    task_name: str, contexts: Iterable[Context], **options: Unpack[TaskOptions]
) -> list[Task]:
    """Accept many tasks with one name, 500 in each transaction and push.

    Every context is validated before the first task is accepted. If the database becomes unavailable half-way, the
    batches before stay accepted.

    Args:
        task_name: Name of the tasks.
        contexts: One context for each task.
        **options: Options of every task, see [`ax.TaskOptions`][agentexec.TaskOptions].

    Returns:
        The handles of the tasks, in the order of the contexts.

    Raises:
        ContextInvalidError: A context does not fit the type of the task. Nothing is accepted.
        PayloadTooLargeError: A context or the metadata is above `AGENTEXEC_MAX_PAYLOAD_BYTES`. Nothing is accepted.
        UsageError: Another argument is invalid. Nothing is accepted.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    require_known_options("enqueue_many", options, accepts=TaskOptions)
    accepted: list[Task] = []
    for batch in chunks(_new_tasks(task_name, contexts, options)):
        accepted += await RUNTIME.run_patiently(_acceptance(batch, options.get("detached", False)))
    return accepted


@traced
def enqueue_many_sync(
    task_name: str, contexts: Iterable[Context], **options: Unpack[TaskOptions]
) -> list[Task]:
    """Accept many tasks: `enqueue_many` for code without an event loop, with the same arguments, result and errors."""
    require_known_options("enqueue_many_sync", options, accepts=TaskOptions)
    accepted: list[Task] = []
    for batch in chunks(_new_tasks(task_name, contexts, options)):
        accepted += wait_out(_acceptance(batch, options.get("detached", False)))
    return accepted


def _new_tasks(task_name: str, contexts: Iterable[Context], options: TaskOptions) -> list[NewTask]:
    check_iterable("contexts=", contexts)
    new = NewTasks(task_name, **options)
    return [new.task(context) for context in contexts]


def _check_session(session: object, *kinds: type, has: str = "") -> None:
    if session is None or isinstance(session, kinds) or (has and callable(getattr(session, has, None))):
        return
    raise UsageError(
        f"session= must be a SQLAlchemy Session{' or AsyncSession' if has else ''}, not {type(session).__name__}."
    )


def _handle(new: NewTask) -> Task:
    return Task.model_construct(agent_id=new.agent_id, task_name=new.task_name, queue_name=new.queue or "")


def entry_of(new: NewTask) -> Entry:
    """Return the entry of a new task in the dispatch index."""
    return Entry(
        new.agent_id,
        Priority(new.priority),
        new.run_at.timestamp() if new.run_at else 0.0,
        fairness_key=new.fairness_key,
        fairness_weight=new.fairness_weight,
        groups=_groups(new),
    )


def _groups(new: NewTask) -> tuple[str, ...]:
    if new.lock_key is None and new.concurrency_key is None:
        return ()
    groups = groups_of(new.task_name, new.lock_key, new.concurrency_key)
    if groups and not isinstance(RUNTIME.backend, SupportsGroups):
        raise UsageError(
            f"Task {new.task_name} has a lock_key= or concurrency=, and the state backend {CONF.state_backend} cannot let tasks wait "
            "for each other; see agentexec.state.groups.SupportsGroups."
        )
    return groups


def _intake() -> Intake:
    return RUNTIME.get_shared(Intake, lambda: Intake(_accept_batch))


def _accept(new: NewTask) -> Task:
    if new.debounce_key is not None:
        return _accept_debounced(new)
    intake = _intake()
    done, must_run = intake.put(with_context(new))
    if must_run and not intake.run(until=done):
        RUNTIME.submit(intake.run)
    try:
        done.result()
    except IntegrityError:
        return _first_with_key(new)
    return _handle(new)


def _accept_debounced(new: NewTask) -> Task:
    """Merge a task into the one that waits with its key, or add it. Not within a group commit, which a taken key ends."""
    RUNTIME.get_shared(BackendCheck, BackendCheck).check(new.queue or CONF.queue_name)
    with naming_refusals([new]):
        return with_tables(lambda: _first_with_key(new))


@retry_on_deadlock
def _first_with_key(new: NewTask) -> Task:
    """Return the task that has the idempotency key of this one, or add this one if it may take over the key."""
    for _ in range(KEY_TRIES):
        try:
            with writing(RUNTIME.engine) as connection:
                holder = find_holder(connection, new, None)
                push = None if holder is not None else _write(connection, [new])
        except IntegrityError:
            continue  # another process was quicker
        if push is not None:
            push()
        return holder or _handle(new)
    raise contended_key(new)


def _accept_batch(batch: Sequence[NewTask]) -> None:
    """Record tasks of one queue and push them. Raises UsageError if the database refuses a value."""
    with naming_refusals(batch):
        with_tables(lambda: _record_and_push(batch))


def _acceptance(batch: Sequence[NewTask], detached: bool) -> Callable[[], list[Task]]:
    """Return the call that accepts one batch of tasks with one name and queue."""
    scope = current_scope()
    return (
        functools.partial(_accept_many, batch) if scope is None else ChildBatch(scope, batch, detached).accept
    )


def _accept_many(batch: Sequence[NewTask]) -> list[Task]:
    _accept_batch(batch)
    return [_handle(new) for new in batch]


class ChildBatch:
    """Children that the running task enqueues with one call, of one name and queue."""

    def __init__(self, scope: Scope, batch: Sequence[NewTask], detached: bool) -> None:
        self._scope = scope
        self._batch = batch
        self._detached = detached
        self._places: list[Place] | None = None
        self._is_chosen = False

    def accept(self) -> list[Task]:
        """Record and push the children, or find those that an earlier attempt enqueued.

        May be called again after UnavailableError: the children that it has added after all are found. Raises
        LeaseLostError if the task now belongs to another worker, or was canceled.
        """
        # Imported on use, in tasks: enqueue in a script or a web process does without the journal.
        from agentexec.journal.children import candidate_ids  # noqa: PLC0415

        batch = self._batch
        if self._places is None:
            self._places = [candidate_ids(self._scope, new) for new in batch]
        RUNTIME.get_shared(BackendCheck, BackendCheck).check(batch[0].queue or CONF.queue_name)
        for _ in range(KEY_TRIES):
            try:
                return self._record(self._places)
            except IntegrityError:
                # Another process took the key in the same moment, so now the task that has it can be found.
                if len(batch) > 1 or not (batch[0].idempotency_key or batch[0].debounce_key):
                    raise
        raise contended_key(batch[0])

    @retry_on_deadlock
    def _record(self, places: Sequence[Place]) -> list[Task]:
        from agentexec.journal.children import Place, choose_children  # noqa: PLC0415
        from agentexec.journal.store import require_lease  # noqa: PLC0415

        with writing(RUNTIME.engine) as connection:
            # This locks the parent's row until the commit: a cancel of the parent comes before, or finds the children.
            require_lease(connection, self._scope.recorder.lease)
            children = choose_children(
                connection, self._scope, self._batch, places, self._detached, may_exist=self._is_chosen
            )
            # If the commit is not confirmed, the children may be there, and may even have failed.
            self._places, self._is_chosen = [Place([child.task.agent_id]) for child in children], True
            holders = [find_holder(connection, new, self._scope) for new in self._batch]
            self._scope.recorder.passed.note_children(holder.agent_id for holder in holders if holder)
            # Those that exist, or whose idempotency key another task holds, are not written.
            missing = [
                new.task for new, holder in zip(children, holders, strict=True) if new.is_new and not holder
            ]
            push = _write(connection, missing) if missing else None
        if push is not None:
            push()
        return [holder or _handle(child.task) for child, holder in zip(children, holders, strict=True)]


def _record_and_push(batch: Sequence[NewTask]) -> None:
    queue, entries = batch[0].queue or CONF.queue_name, [entry_of(new) for new in batch]
    RUNTIME.get_shared(BackendCheck, BackendCheck).check(queue)
    backend, store = RUNTIME.backend, record_store()
    if backend.transactional:
        sql = getattr(backend, "push_statement", lambda *_: None)(queue, entries)
        push = functools.partial(backend.push, queue, entries)
        if not store.insert(batch, utc_now(), push=lambda it: push(transaction=it), push_statement=sql):
            _wake(queue, len(entries))
    else:
        store.insert(batch, utc_now())
        _push(queue, entries)


def enqueue_in_transaction(connection: Connection, new: NewTask) -> Callable[[], None]:
    """Enqueue within a transaction of agentexec itself; return the function to call after its commit."""
    return _write(connection, [new])


def _write(connection: Connection, batch: Sequence[NewTask]) -> Callable[[], None]:
    """Write tasks within a transaction; return the function to call after its commit."""
    backend = RUNTIME.backend
    queue, entries = batch[0].queue or CONF.queue_name, [entry_of(new) for new in batch]
    with batched(connection):
        insert_tasks(connection, batch, utc_now())
        if backend.transactional:
            backend.push(queue, entries, transaction=connection)
    if backend.transactional:
        return lambda: _wake(queue, len(entries))
    return lambda: _push(queue, entries)


def _push(queue: str, entries: Sequence[Entry]) -> None:
    """Push accepted tasks. If this fails, the reconciler pushes them later, since they are in the record."""
    # The tasks are accepted. An error would make the caller enqueue them again.
    with RUNTIME.best_effort(log, "%d accepted task(s) will be pushed when it is back.", len(entries)):
        RUNTIME.backend.push(queue, entries)


def _wake(queue: str, count: int) -> None:
    """Wake workers for accepted tasks. Without it, they look by themselves within seconds."""
    with RUNTIME.best_effort(log, "Workers of queue %s were not woken; they look by themselves.", queue):
        RUNTIME.backend.wake(queue, count)


def _join(session: Session, new: NewTask, scope: Scope | None, detached: bool) -> Task:
    """Write a task within the transaction of a session, and push it after the commit."""
    with translating_db_errors(RUNTIME.engine):
        connection = session.connection()
        holder = find_holder(connection, new, scope)
        if holder is not None:
            if scope is not None:
                scope.recorder.passed.note_children([holder.agent_id])
            return holder
        if scope is not None:
            from agentexec.journal.children import candidate_ids, choose_children  # noqa: PLC0415

            [child] = choose_children(connection, scope, [new], [candidate_ids(scope, new)], detached)
            new = child.task
            if not child.is_new:
                return _handle(new)
        push = _write(connection, [new])
    call_after_commit(session, push)
    return _handle(new)
