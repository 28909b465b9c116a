"""Claimed tasks that may not start yet: another task has their lock, or their enqueuer did not know their keys."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, update

from agentexec.activity.changes.crashes import FailedTask
from agentexec.activity.changes.endings import Ending, end
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.config import CONF
from agentexec.db.chunks import chunks
from agentexec.db.columns import text_in
from agentexec.errors import ContextInvalidError
from agentexec.task import Entry, Lease, Status, groups_of, stored_entry

LOCK_WAIT = 1.0
"""Seconds between two tries of a task whose lock the queue does not know to be taken."""

STOP_WAIT = 0.2
"""Seconds between two tries while the handler of a canceled task, which has the lock, stops."""


class Postponed(NamedTuple):
    """A claimed task that may not start yet."""

    entry: Entry
    """Its entry, to be pushed again; the epoch is that of the record."""
    delay: float = 0.0
    """Seconds until it is tried again."""
    keeps_place: bool = False
    """True if the queue cannot know who has the lock: this task is tried again, and those behind it wait for it."""
    error: str | None = None
    """Reason for which it can never start."""


class TaskKeys(Protocol):
    """Keys by which a worker's tasks are locked and limited."""

    @property
    def names(self) -> Collection[str]:
        """Names of the tasks that have keys."""
        ...

    @property
    def lock_names(self) -> Collection[str]:
        """Names of the tasks that have a lock."""
        ...

    @property
    def limit_names(self) -> Collection[str]:
        """Names of the tasks that have a limit."""
        ...

    def fill(self, row: Any) -> tuple[str | None, str | None]:
        """Return the lock key and the concurrency key of a task's row. Raises ContextInvalidError."""
        ...


def find_postponed(
    connection: Connection, rows: Sequence[Any], keys: TaskKeys | None
) -> dict[UUID, Postponed]:
    """Return the tasks of a batch of claims, whose rows are locked, that may not start yet; write the keys that they lack."""
    queued = [row for row in rows if row.status is Status.QUEUED]
    found = {} if keys is None else _complete_keys(connection, queued, keys)
    others = [row for row in rows if row.agent_id not in found] if found else rows
    found.update(_find_locked(connection, others))
    return found


def _complete_keys(connection: Connection, rows: Sequence[Any], keys: TaskKeys) -> dict[UUID, Postponed]:
    """Give those tasks their keys that were enqueued where nobody knew their handlers."""
    found: dict[UUID, Postponed] = {}
    changes: list[dict[str, Any]] = []
    names = keys.names
    for row in rows if names else ():
        if row.agent_type not in names:
            continue
        try:
            lock_key, concurrency_key = keys.fill(row)
        except ContextInvalidError as error:
            found[row.agent_id] = Postponed(stored_entry(row), error=str(error))
            continue
        if (lock_key, concurrency_key) != (row.lock_key, row.concurrency_key):
            entry = stored_entry(row)._replace(groups=groups_of(row.agent_type, lock_key, concurrency_key))
            found[row.agent_id] = Postponed(entry)
            changes.append({"id": row.agent_id, "new_lock": lock_key, "new_key": concurrency_key})
    if changes:
        c = ACTIVITY.c
        new = {"lock_key": bindparam("new_lock"), "concurrency_key": bindparam("new_key")}
        statement = update(ACTIVITY).where(c.agent_id == bindparam("id", type_=c.agent_id.type)).values(**new)
        connection.execute(statement, changes)
    return found


def _find_locked(connection: Connection, rows: Sequence[Any]) -> dict[UUID, Postponed]:
    """Return the tasks whose locks others have. The queue may not know: it was emptied, or the other task is on another one."""
    wanted = [row for row in rows if isinstance(row.lock_key, str) and row.held_lock != row.lock_key]
    holders: dict[str, Any] = {}
    for chunk in chunks([*{row.lock_key for row in wanted}]):
        query = _holders_query(connection.dialect.name)
        holders.update((holder.held_lock, holder) for holder in connection.execute(query, {"keys": chunk}))
    found: dict[UUID, Postponed] = {}
    for row in wanted:
        holder = holders.setdefault(row.lock_key, row)
        if holder.agent_id != row.agent_id:
            is_stopping = holder.status.final
            delay = STOP_WAIT if is_stopping else LOCK_WAIT
            found[row.agent_id] = Postponed(
                stored_entry(row), delay, is_stopping or holder.queue != row.queue
            )
    return found


@functools.cache
def _holders_query(dialect: str) -> Any:
    c = ACTIVITY.c
    return select(c.held_lock, c.agent_id, c.queue, c.status).where(text_in(c.held_lock, "keys", dialect))


def end_invalid(
    connection: Connection,
    postponed: Sequence[tuple[Lease, Postponed]],
    names: dict[UUID, str],
    now: datetime,
) -> list[FailedTask]:
    """End the tasks that can never start, with an error each."""
    failed: list[FailedTask] = []
    for lease, task in postponed:
        if task.error is not None:
            message = CONF.activity_message_error.format(error=task.error)
            ending = Ending(lease, Status.ERROR, message, error=task.error)
            end(connection, ending, [lease.agent_id], now)
            failed.append(FailedTask(lease.agent_id, names[lease.agent_id], task.error))
    return failed
