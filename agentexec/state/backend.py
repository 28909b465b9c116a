"""State backend protocol: the dispatch index of the queue, the mailboxes and the live events.

A backend holds ids, never payloads: a task's data is read from the record. Everything here may be lost (an emptied
Redis, for example), and the reconciler rebuilds it. All methods are synchronous and may be called from several threads
at once; the async functions of agentexec call them from threads. `agentexec.testing.backend_suite` defines the protocol
in tests.

A backend module exposes `create(settings, engine) -> StateBackend`, and `AGENTEXEC_STATE_BACKEND` names the module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID

from agentexec.llm.rate_limits import Demand
from agentexec.state.answers import ClaimResult, Comparison, Depth, Event, LostLeases, TaskPage
from agentexec.state.groups import NO_LIMITS
from agentexec.task import Entry, Lease

if TYPE_CHECKING:
    from sqlalchemy import Connection


PROTOCOL_VERSION = 1
"""Version of this protocol. It rises when backends of other authors have to change; they name theirs in `protocol_version`."""

WATCH_TTL_SECONDS = 3600
"""Seconds until a watch expires that is not repeated."""

MAIL_TTL_SECONDS = 60
"""Seconds after which the messages of a mailbox that nobody reads may be removed."""

EVENTS_KEPT = 1000
"""Minimum number of events of one task that a backend keeps; it may keep a few hundred more."""

EVENT_TTL_SECONDS = 600
"""Seconds that the events of a task are kept after its last one."""

FOLLOW_TTL_SECONDS = 60
"""Seconds that a mailbox follows a task unless it repeats the call."""


LEADERSHIP_SLACK = 60.0
"""Seconds for which a leadership may last in addition, because hosts may have settings of different lengths."""


def longest_leadership(seconds: float) -> float:
    """Return the seconds from now after which no leadership ends, by the length for which it is acquired."""
    return 2 * seconds + LEADERSHIP_SLACK


@runtime_checkable
class StateBackend(Protocol):
    """Interface that agentexec needs of a state backend.

    Every call is bounded in time. Every method that needs the server raises `UnavailableError` when it cannot be
    reached or refuses to serve; callers wait, or leave the work to the reconciler.
    """

    transactional: bool
    """True if `push` and `finish` can join a transaction of the record's database (`transaction`)."""

    def ping(self) -> None:
        """Reach the server, check that it serves what the other methods need, and prepare it.

        Raises:
            UnavailableError: The server cannot be reached.
            UsageError: The server cannot be used until somebody changes it, for example because it is too old or denies
                a command. A worker ends with exit code 2.
        """

    def close(self) -> None:
        """Close connections. A later call opens them again."""

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        """Put tasks on a queue, and wake as many workers. Tasks that the index knows are left as they are.

        Args:
            queue: Name of the queue.
            entries: Tasks; `run_at` is in seconds since the epoch.
            transaction: Connection of the record's database whose transaction the entries join (only where
                `transactional`). The caller calls `wake` after its commit.

        Raises:
            UsageError: `transaction` was given, and the backend is not transactional.
        """

    def wake(self, queue: str, count: int) -> None:
        """Wake workers that wait on a queue.

        Args:
            queue: Name of the queue.
            count: Maximum number of workers to wake.
        """

    def claim(
        self,
        queue: str,
        worker: str,
        *,
        limit: int,
        low_quota: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> ClaimResult:
        """Lease ready tasks to a worker atomically, each with its epoch raised by 1.

        HIGH comes before LOW. Within a priority the fairness keys of the tasks take turns, each with as many tasks as its weight,
        and a key's oldest task comes first; tasks without a key are those of one more key of weight 1. A task whose key has
        nothing else waiting is claimed within one turn of the others. Delayed tasks that are due count as ready. A task whose groups
        (see `agentexec.state.groups`) do not admit it waits in their line, and the next one is looked at, some hundreds at most. A
        lock has a task from its first claim until it is finished or removed; a limit, while it is leased.

        Args:
            queue: Name of the queue.
            worker: Name of the worker, which holds the leases.
            limit: Maximum number of tasks. A backend may return fewer although more are ready.
            low_quota: Number of tasks, within `limit`, taken from LOW first, so a flood of HIGH cannot starve LOW.
            lease_seconds: Length of the leases in seconds.
            limits: Largest number of leased tasks in each limit of a task, by the task's name. A caller without any
                leaves it out.

        Returns:
            The leases, and the seconds until the next delayed task is due.
        """

    def wait(self, queue: str | Sequence[str], timeout: float) -> None:
        """Wait until a task may be ready. May return early.

        Args:
            queue: Name of the queue. A worker that serves several passes a list of names.
            timeout: Longest wait in seconds.
        """

    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        """Extend leases. A lease that expired is taken up again, unless another worker has claimed the task.

        Args:
            queue: Name of the queue.
            worker: Name of the worker that holds the leases.
            leases: Leases to extend.
            lease_seconds: Length of the leases in seconds, from now on.

        Returns:
            The leases that could not be extended.
        """

    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        """Forget finished tasks, except those that a higher epoch holds. Watchers are told by `notify_done`.

        Args:
            queue: Name of the queue.
            leases: Leases of the finished tasks.
            transaction: Connection of the record's database whose transaction the removal joins (only where
                `transactional`).

        Raises:
            UsageError: `transaction` was given, and the backend is not transactional.
        """

    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        """Give a task back to the queue.

        Args:
            queue: Name of the queue.
            lease: Lease of the task.
            delay: Seconds until the task is ready again. With 0 it goes to the front of its priority.

        Returns:
            False if the lease is not the caller's any more.
        """

    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Make delayed tasks ready now, and wake workers.

        Args:
            queue: Name of the queue.
            agent_ids: Tasks. Those that are ready, leased or unknown stay as they are.
        """

    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        """Add tasks that the record says are running, leased to nobody.

        A worker that still runs one of them renews its lease; otherwise the lease expires.

        Args:
            queue: Name of the queue.
            entries: Tasks. Those that the index knows are left as they are.
            lease_seconds: Length of the leases in seconds.
        """

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        """Return leases that have expired, the oldest first, without changing the tasks.

        Args:
            queue: Name of the queue.
            limit: Maximum number of leases.
        """

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        """Return the leases of a worker.

        Args:
            queue: Name of the queue.
            worker: Name of the worker.
        """

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Remove tasks from the index, whatever their state.

        Args:
            queue: Name of the queue.
            agent_ids: Tasks to remove.

        Returns:
            The worker of each removed task that was leased.
        """

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Return those of `agent_ids` that the index does not know.

        Args:
            queue: Name of the queue.
            agent_ids: Tasks to look up.
        """

    def compare(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> Comparison:
        """Compare what the index knows about tasks with what the record says, and change nothing about them.

        An entry is wrong if `agentexec.policy.fits_record` says so, or if it belongs to another queue, or cannot be read
        though it stands in the way of a new one. The reconciler removes it and pushes or restores the task.

        Args:
            queue: Name of the queue.
            entries: Tasks as the record has them: when they may start, and the last epoch.
            lease_seconds: Length of the leases in seconds.

        Returns:
            The tasks that are unknown, and those that are wrong.
        """

    def list_tasks(self, queue: str, cursor: str) -> TaskPage:
        """Return a page of the tasks that the index knows, in any order, whatever their state.

        Each task that stays known is on some page; a task may be on several pages. Data that cannot belong to a task is
        removed on the way.

        Args:
            queue: Name of the queue.
            cursor: Cursor of the page, empty for the first one. An unknown cursor starts again.

        Returns:
            Up to a few thousand tasks, and the cursor of the next page.
        """

    def depth(self, queue: str) -> Depth:
        """Count the tasks of a queue.

        Args:
            queue: Name of the queue.
        """

    def is_intact(self, queue: str) -> bool:
        """Return False if the index was emptied since `mark_intact`; the reconciler then rebuilds it.

        Args:
            queue: Name of the queue.
        """

    def mark_intact(self, queue: str) -> None:
        """Note that the index of a queue is complete.

        Args:
            queue: Name of the queue.
        """

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell a mailbox when tasks are done. A watch expires after an hour unless repeated.

        Args:
            queue: Name of the queue.
            agent_ids: Tasks to watch.
            mailbox: Name of the mailbox.
        """

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Send `done <agent_id>` to every mailbox that watches one of these tasks, and end the watches.

        Args:
            queue: Name of the queue.
            agent_ids: Tasks that are done.
        """

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        """Put messages into the mailbox of a process. A mailbox that nobody reads is removed after a minute.

        Args:
            mailbox: Name of the mailbox.
            messages: Messages, in order.
        """

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        """Wait for messages, and take all of them.

        Args:
            mailbox: Name of the mailbox.
            timeout: Longest wait in seconds.

        Returns:
            The messages, oldest first; an empty list after `timeout`.
        """

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        """Append live events to those of each task, and send `events <agent_id>` to its followers.

        At least the last EVENTS_KEPT events of a task stay, for EVENT_TTL_SECONDS after its last one. Numbers only
        grow, also after all earlier events are gone. One process at a time publishes for a task; if two publish at
        the same moment, some events may be lost.

        Args:
            queue: Name of the queue.
            events: New events of each task, as JSON texts, oldest first.
        """

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        """Return the kept events of tasks.

        Args:
            queue: Name of the queue.
            after: Tasks, each with the number of the last event that the caller knows.

        Returns:
            For each task the events above that number, oldest first; no entry for a task without any.
        """

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell a mailbox about new events of tasks, for FOLLOW_TTL_SECONDS.

        Args:
            queue: Name of the queue.
            agent_ids: Tasks to follow.
            mailbox: Name of the mailbox.
        """

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of `agent_ids` that some mailbox follows.

        Args:
            queue: Name of the queue.
            agent_ids: Tasks to look up.
        """

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        """Acquire or keep a leadership.

        A leadership that ends later than `longest_leadership(seconds)` from now was forged, and holds nobody off.

        Args:
            role: Name of the leadership.
            owner: Name of the process.
            seconds: Seconds until the leadership expires.

        Returns:
            False if another owner holds it.
        """

    def release_leadership(self, role: str, owner: str) -> None:
        """Give up a leadership if `owner` holds it.

        Args:
            role: Name of the leadership.
            owner: Name of the process.
        """

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        """Take amounts from token buckets that all processes share: all of them, or none.

        New buckets are full. A demand for more than a bucket holds waits until the bucket is full. The clock is the
        server's. See `agentexec.llm.rate_limits`.

        Args:
            demands: Amounts, each with its bucket.
            max_wait: Longest wait, in seconds, for which the amounts are taken in advance.

        Returns:
            The seconds to wait, 0.0 for none. Up to `max_wait` the amounts are taken already: wait, then continue. Above
            it nothing was taken.
        """

    def settle(self, demands: Sequence[Demand]) -> None:
        """Correct earlier reservations, without a wait.

        Args:
            demands: Amounts, each with its bucket: above 0 takes more, below 0 gives back.
        """
