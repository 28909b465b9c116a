"""The state backend: a rebuildable dispatch index over the record, in the domain's words.

A backend holds ids, never payloads: what a task is, is read from the record. Everything here may be lost
(Redis emptied) and is rebuilt by the reconciler. All methods are synchronous and safe to call from several
threads; the async edges of agentexec call them from threads. `agentexec.testing.backend_suite` is the
definition in tests.

A backend module exposes `create(settings, engine) -> StateBackend`; see `AGENTEXEC_STATE_BACKEND`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast, runtime_checkable
from uuid import UUID

from agentexec.errors import BackendInvalidError
from agentexec.llm.rate_limits import Demand
from agentexec.task import Entry, Lease

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from agentexec.config import Settings


EVENTS_KEPT = 1000
"""Events of one task that a backend keeps at least; it may keep a few hundred more."""

EVENT_TTL_SECONDS = 600
"""How long the events of a task are kept after its last one."""

FOLLOW_TTL_SECONDS = 60
"""How long a mailbox follows a task unless it says so again."""


class ClaimResult(NamedTuple):
    """What a claim got: leases, and the seconds until the next delayed task is due (None: there is none)."""

    leases: list[Lease]
    next_due: float | None


class Depth(NamedTuple):
    """Numbers of tasks of a queue: ready to start, delayed, and leased to a worker."""

    ready: int
    delayed: int
    leased: int


class LostLeases(NamedTuple):
    """Leases that a renewal could not extend.

    `taken`: another worker holds a higher epoch, so this one must stop. `missing`: the index does not know
    the task (it was canceled, or the index was emptied); the record decides.
    """

    taken: list[UUID]
    missing: list[UUID]


class Event(NamedTuple):
    """A short-lived event of a task, and its number: one more than that of the event before it."""

    number: int
    text: str


@runtime_checkable
class StateBackend(Protocol):
    """What agentexec needs of a state backend. Times are seconds; every call is bounded in time.

    Methods raise `UnavailableError` when the server cannot be reached.
    """

    transactional: bool
    """True if `push` and `finish` can join a transaction of the record's database (`transaction`)."""

    def ping(self) -> None:
        """Reach the server, prepare what the backend needs; raise UnavailableError or UsageError."""

    def close(self) -> None:
        """Close connections. The backend may be used again afterwards."""

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        """Put tasks on a queue and wake as many workers. A task that is already there is left as it is.

        With `transaction` (only where `transactional`) the entries are part of that transaction, and the caller
        calls `wake` after its commit.
        """

    def wake(self, queue: str, count: int) -> None:
        """Wake up to `count` workers that wait on a queue."""

    def claim(
        self, queue: str, worker: str, *, limit: int, low_quota: int, lease_seconds: float
    ) -> ClaimResult:
        """Atomically lease up to `limit` ready tasks to `worker`, each with its epoch raised by one.

        HIGH before LOW and oldest first, except that up to `low_quota` of them are taken from LOW first, so
        that a flood of HIGH cannot starve LOW. Delayed tasks that are due count as ready.
        """

    def wait(self, queue: str, timeout: float) -> None:
        """Return when a task may be ready on `queue`, or after `timeout` seconds. May return early."""

    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        """Extend leases. A lease that expired but was not claimed by another is taken up again."""

    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        """Forget finished tasks, unless a higher epoch holds them. What `watch` noted is told by `notify_done`."""

    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        """Give a task back: to the front of its priority, or after `delay` seconds. False if not ours any more."""

    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Make delayed tasks ready now, and wake workers; tasks that are ready, leased or unknown stay as they are."""

    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        """Note tasks that the record says are running but the index does not know, as leased to nobody.

        If their workers live, they renew; else the leases expire. Tasks that the index knows are left as they are.
        """

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        """Leases whose time has passed (nothing is changed), oldest first."""

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        """The leases of one worker."""

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Take tasks out, whatever their state. Returns the workers that held leases on any of them."""

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Those of `agent_ids` that the index does not know."""

    def depth(self, queue: str) -> Depth:
        """Count the tasks of a queue."""

    def is_intact(self, queue: str) -> bool:
        """False if the index was emptied since `mark_intact`; the reconciler then rebuilds it."""

    def mark_intact(self, queue: str) -> None:
        """Note that the index of a queue is whole."""

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Have `mailbox` told when these tasks are done. A watch lapses after an hour unless repeated."""

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Send `done <agent_id>` to every mailbox that watches one of these tasks, and end the watches."""

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        """Put messages into a mailbox (a process that waits). Mailboxes nobody reads vanish after a minute."""

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        """Wait up to `timeout` seconds for messages, and take all of them, oldest first."""

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        """Append short-lived events (JSON texts) to those of each task, and send `events <agent_id>` to its followers.

        At least the last EVENTS_KEPT of a task stay, for EVENT_TTL_SECONDS after its last one. Numbers only grow, also
        when all earlier events are gone. One process at a time publishes for a task; of what two publish in the
        same moment, some may be lost.
        """

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        """For each task the events kept whose number is above the one given, oldest first; no entry if none."""

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Have `mailbox` told of events of these tasks, for FOLLOW_TTL_SECONDS."""

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Those of `agent_ids` that some mailbox follows."""

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        """Take or keep a leadership for `seconds`; False if another owner holds it."""

    def release_leadership(self, role: str, owner: str) -> None:
        """Give a leadership up, if held by `owner`."""

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        """Take amounts of token buckets that all processes share, all of them or none. 0.0 means go.

        Else it is the seconds to wait. Up to `max_wait` they are taken already: wait, then go; above it nothing was
        taken. New buckets are full; a demand for more than a bucket holds waits until it is full. By the server's
        clock. See `agentexec.rate_limits`.
        """

    def settle(self, demands: Sequence[Demand]) -> None:
        """Correct what was reserved, at once: amounts above 0 take more, below 0 give back."""


def load_backend(module_path: str, settings: Settings, engine: Engine) -> StateBackend:
    """Make the backend of a module; raises BackendInvalidError that names what the module or backend lacks."""
    try:
        module = importlib.import_module(module_path)
    except ImportError as error:
        raise BackendInvalidError(
            f"AGENTEXEC_STATE_BACKEND names {module_path}, which cannot be imported: {error}."
        ) from error
    create = getattr(module, "create", None)
    if not callable(create):
        raise BackendInvalidError(
            f"AGENTEXEC_STATE_BACKEND names {module_path}, which lacks create(settings, engine)."
        )
    backend = create(settings, engine)
    missing = [name for name in required_names() if not hasattr(backend, name)]
    if missing:
        raise BackendInvalidError(
            f"The state backend of {module_path} lacks {', '.join(missing)}; see agentexec.state.backend.StateBackend."
        )
    return cast(StateBackend, backend)


def required_names() -> list[str]:
    """The names of everything that a backend must have."""
    methods = [
        name for name, value in vars(StateBackend).items() if callable(value) and not name.startswith("_")
    ]
    return ["transactional", *methods]
