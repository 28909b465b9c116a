"""Tracker: a counter that many tasks share, to know when a dynamic fan-out is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.arguments.checks import MAX_INTEGER, check_integer, check_storable, check_text
from agentexec.client.enqueue import enqueue_in_transaction
from agentexec.client.new_task import Context, new_task
from agentexec.db.clock import utc_now
from agentexec.errors import AgentexecError
from agentexec.journal import trackers
from agentexec.journal.facts import fit_path
from agentexec.journal.scopes import current_scope
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Priority, new_agent_id

MAX_IDENTITY = 100_000
"""Maximum characters of a tracker's name; a long one is stored as its hash."""

_last_decr: ContextVar[dict[str, int] | None] = ContextVar("agentexec_tracker_last_decr", default=None)


class Tracker:
    """Counter of unfinished work, atomic across processes. Its calls block briefly, also in async code.

    Inside a task a change counts once, however often the task runs again and comes to it. Counts are in the database and
    are removed 30 days after their last change. While the database is away, a call inside a task waits for it. In async code
    that blocks the event loop; `await asyncio.to_thread(tracker.incr)` does not.

    Args:
        name: Name of the counter, not empty.
        *parts: Further parts of its identity. The same name and parts mean the same counter in every process.

    Raises:
        UsageError: The name is empty.
    """

    def __init__(self, name: str, *parts: object) -> None:
        check_text("name=", name, MAX_IDENTITY)
        # Escaped, because ("a:b", "c") and ("a", "b:c") are two counters.
        self.key = fit_path(":".join(quote(_part(part), safe="") for part in (name, *parts)))

    def incr(self, amount: int = 1) -> int:
        """Add to the count.

        Args:
            amount: Number to add.

        Returns:
            The new count.

        Raises:
            UsageError: The amount is not a whole number.
            UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
        """
        _last_decr.set({key: left for key, left in (_last_decr.get() or {}).items() if key != self.key})
        return self._change(_checked(amount))

    def decr(self, amount: int = 1) -> int:
        """Subtract from the count.

        Args:
            amount: Number to subtract.

        Returns:
            The new count.

        Raises:
            UsageError: The amount is not a whole number.
            UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
        """
        left = self._change(-_checked(amount))
        # A new dictionary, because code with an inherited context must not see the count of its sibling.
        _last_decr.set({**(_last_decr.get() or {}), self.key: left})
        return left

    @property
    def count(self) -> int:
        """Present count."""
        return wait_out(trackers.read_count, RUNTIME.engine, self.key)

    @property
    def complete(self) -> bool:
        """True if no work is left.

        After a `decr` in the same task or function, this is the answer of that `decr`: of several tasks that end
        together, exactly one sees True.
        """
        left = (_last_decr.get() or {}).get(self.key)
        return (self.count if left is None else left) <= 0

    def on_complete(
        self,
        task_name: str,
        context: Context = None,
        *,
        priority: Priority = Priority.LOW,
        metadata: Mapping[str, Any] | None = None,
        queue_name: str | None = None,
    ) -> bool:
        """Enqueue a task when the count reaches 0, exactly once: in the transaction of the `decr` that does it.

        Call it before or after counting. A tracker that never counted anything is not complete. Only the first call for a
        tracker has an effect.

        Args:
            task_name: Name of the task.
            context: Input of the task.
            priority: `ax.Priority.HIGH` goes to the front of the queue.
            metadata: Labels stored with the activity.
            queue_name: Queue of the task; `AGENTEXEC_QUEUE_NAME` by default.

        Returns:
            True if all that was counted is done already and the task is enqueued now.

        Raises:
            AgentexecError: As `ax.enqueue` does.
        """
        new = new_task(task_name, context, priority=priority, metadata=metadata, queue_name=queue_name)
        wanted = new._asdict() | {"agent_id": None}
        return wait_out(trackers.on_complete, RUNTIME.engine, self.key, json.dumps(wanted), _fire, utc_now())

    def _change(self, amount: int) -> int:
        return wait_out(
            trackers.change_count, RUNTIME.engine, self.key, amount, self._mark(amount), _fire, utc_now()
        )

    def _mark(self, amount: int) -> trackers.Mark | None:
        scope = current_scope()
        if scope is None:
            return None
        stem = f"{scope.path}/tracker:{self.key}:{amount:+d}"
        return trackers.Mark(
            scope.recorder.lease.agent_id, fit_path(f"{stem}#{scope.recorder.next_ordinal(stem)}")
        )


def _part(part: object) -> str:
    """Return a part of a tracker's identity as text. Any text will do: it is escaped."""
    return check_storable("A part of the tracker", str(part))


def _checked(amount: int) -> int:
    return check_integer("amount=", amount, minimum=-MAX_INTEGER)


def _fire(connection: Connection, task: str) -> Callable[[], None]:
    try:
        new = NewTask(**json.loads(task) | {"agent_id": new_agent_id()})
        Priority(new.priority)
    except (ValueError, TypeError, RecursionError):
        raise AgentexecError(
            "The task of a tracker cannot be read: the database holds something else in its place."
        ) from None
    return enqueue_in_transaction(connection, new)
