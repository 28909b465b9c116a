"""Waits that cannot end: a task waits for one that needs the lock of the first, or its only place in a limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from agentexec.errors import WaitDeadlockError
from agentexec.runtime import RUNTIME
from agentexec.task import Status


def refuse_deadlock(waiter: UUID, rows: Sequence[Any]) -> None:
    """Raise WaitDeadlockError if a running task waits for one that waits for it.

    Args:
        waiter: The running task.
        rows: Rows of the tasks that it is going to wait for, and its own.
    """
    own = next((row for row in rows if row.agent_id == waiter), None)
    if own is None or (own.held_lock is None and own.concurrency_key is None):
        return
    for row in rows:
        if row.status is Status.QUEUED and row.agent_id != waiter:
            reason = _same_lock(own, row) or _same_limit(own, row)
            if reason is not None:
                raise WaitDeadlockError(
                    f"Task {own.agent_type} ({waiter}) cannot wait for task {row.agent_type} ({row.agent_id}): {reason}"
                )


def _same_lock(own: Any, row: Any) -> str | None:
    if own.held_lock is None or row.lock_key != own.held_lock:
        return None
    return (
        f"both have the lock {own.held_lock}, so the second starts when the first has ended. Enqueue it without waiting for "
        "it, or give it another lock_key."
    )


def _same_limit(own: Any, row: Any) -> str | None:
    group = (own.agent_type, own.concurrency_key, own.queue)
    if own.concurrency_key is None or group != (row.agent_type, row.concurrency_key, row.queue):
        return None
    definition = RUNTIME.definition(own.agent_type)
    if definition is None or definition.concurrency != 1:
        return None
    key = f" with the key {own.concurrency_key}" if own.concurrency_key else ""
    return (
        f"concurrency=1 lets one task of this name{key} run at a time, and the first counts while it waits. Enqueue it without "
        "waiting for it, raise the limit, or use another task for it."
    )
