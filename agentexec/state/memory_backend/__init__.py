"""The state backend within one process, for tests: nothing to install, nothing left behind."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from agentexec.errors import UsageError
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand, spend
from agentexec.state.backend import (
    EVENT_TTL_SECONDS,
    EVENTS_KEPT,
    FOLLOW_TTL_SECONDS,
    ClaimResult,
    Depth,
    Event,
    LostLeases,
)
from agentexec.state.messages import DONE, EVENTS, format_message
from agentexec.task import Entry, Lease, Priority

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from agentexec.config import Settings

WATCH_SECONDS = 3600.0
MAIL_SECONDS = 60.0
_ATTRIBUTE = "_agentexec_memory_backend"


def create(settings: Settings, engine: Engine) -> MemoryBackend:
    """The backend of an engine: everything in the process that shares the engine shares its queue too.

    It hangs on the engine because the index belongs to that record and should live no longer than it.
    """
    return vars(engine).setdefault(_ATTRIBUTE, MemoryBackend())


@dataclass(slots=True)
class _Task:
    """What is known of a task; it stands in exactly one of its queue's `ready`, `delayed` and `leases`."""

    epoch: int
    priority: Priority
    worker: str = ""


@dataclass(slots=True)
class _Mailbox:
    messages: list[str] = field(default_factory=list)
    since: float = 0.0
    """When the first of the messages came."""


@dataclass(slots=True)
class _Channel:
    """The events of one task."""

    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    last_at: float = 0.0


class _Queue:
    """The tasks of one queue. Moments are seconds since the epoch."""

    def __init__(self, lock: threading.RLock) -> None:
        self.tasks: dict[UUID, _Task] = {}
        self.ready: dict[Priority, OrderedDict[UUID, None]] = {one: OrderedDict() for one in Priority}
        self.delayed: dict[UUID, float] = {}
        self.leases: dict[UUID, float] = {}
        self.watches: defaultdict[UUID, dict[str, float]] = defaultdict(dict)
        self.channels: dict[UUID, _Channel] = {}
        self.follows: defaultdict[UUID, dict[str, float]] = defaultdict(dict)
        self.intact = False
        self.news = threading.Condition(lock)

    def promote(self, now: float) -> None:
        """Make delayed tasks that are due ready, in the order in which they became due."""
        for agent_id in sorted(
            (one for one, due in self.delayed.items() if due <= now), key=self.delayed.__getitem__
        ):
            del self.delayed[agent_id]
            self.ready[self.tasks[agent_id].priority][agent_id] = None

    def take(self, limit: int, low_quota: int) -> Iterator[UUID]:
        """Take ready tasks out: `low_quota` from LOW, then HIGH, then LOW."""
        for priority, most in (
            (Priority.LOW, min(low_quota, limit)),
            (Priority.HIGH, limit),
            (Priority.LOW, limit),
        ):
            lane = self.ready[priority]
            while lane and most > 0 and limit > 0:
                most, limit = most - 1, limit - 1
                yield lane.popitem(last=False)[0]

    def next_due(self, now: float) -> float | None:
        return max(0.0, min(self.delayed.values()) - now) if self.delayed else None

    def withdraw(self, agent_id: UUID) -> None:
        """Take a task out of wherever it stands."""
        for lane in self.ready.values():
            lane.pop(agent_id, None)
        self.delayed.pop(agent_id, None)
        self.leases.pop(agent_id, None)


class MemoryBackend:
    """State backend within one process; see `StateBackend`.

    Args:
        clock: Returns the time in seconds since the epoch.
        single_queue: Treat all queue names as one queue, so that one claim finds every task.
    """

    transactional = False

    def __init__(self, clock: Callable[[], float] = time.time, *, single_queue: bool = False) -> None:
        self._clock = clock
        self._single_queue = single_queue
        self._lock = threading.RLock()
        self._mail_came = threading.Condition(self._lock)
        self._queues: dict[str, _Queue] = {}
        self._mailboxes: defaultdict[str, _Mailbox] = defaultdict(_Mailbox)
        self._leaders: dict[str, tuple[str, float]] = {}
        self._buckets: dict[str, int] = {}

    def ping(self) -> None:
        """Nothing can be out of reach."""

    def close(self) -> None:
        """Nothing is open; tasks stay, as they would on a server."""

    def flush(self) -> None:
        """Forget everything, as a server does that was emptied."""
        with self._lock:
            for queue in self._queues.values():
                queue.news.notify_all()
            self._queues.clear()
            self._mailboxes.clear()
            self._leaders.clear()
            self._buckets.clear()

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        """Put tasks on a queue and wake as many workers. A task that is already there is left as it is."""
        _refuse_transaction(transaction)
        with self._lock:
            state = self._queue(queue)
            for agent_id, priority, run_at, epoch in entries:
                if agent_id in state.tasks:
                    continue
                state.tasks[agent_id] = _Task(epoch, Priority(priority))
                if run_at > self._clock():
                    state.delayed[agent_id] = run_at
                else:
                    state.ready[priority][agent_id] = None
            state.news.notify(len(entries))

    def wake(self, queue: str, count: int) -> None:
        """Wake up to `count` workers that wait on a queue."""
        with self._lock:
            self._queue(queue).news.notify(count)

    def claim(
        self, queue: str, worker: str, *, limit: int, low_quota: int, lease_seconds: float
    ) -> ClaimResult:
        """Lease up to `limit` ready tasks to `worker`, each with its epoch raised by one."""
        with self._lock:
            state, now = self._queue(queue), self._clock()
            state.promote(now)
            leases = []
            for agent_id in state.take(limit, low_quota):
                task = state.tasks[agent_id]
                task.epoch, task.worker = task.epoch + 1, worker
                state.leases[agent_id] = now + lease_seconds
                leases.append(Lease(agent_id, task.epoch))
            return ClaimResult(leases, state.next_due(now))

    def wait(self, queue: str, timeout: float) -> None:
        """Return when a task may be ready on `queue`, or after `timeout` seconds. May return early."""
        with self._lock:
            state = self._queue(queue)
            state.promote(self._clock())
            if timeout > 0 and not any(state.ready.values()):
                state.news.wait(timeout)

    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        """Extend leases. A lease that expired but was not claimed by another is taken up again."""
        lost = LostLeases([], [])
        with self._lock:
            state, now = self._queue(queue), self._clock()
            for agent_id, epoch in leases:
                task = state.tasks.get(agent_id)
                if task is None:
                    lost.missing.append(agent_id)
                elif task.epoch > epoch or (task.epoch == epoch and task.worker not in ("", worker)):
                    lost.taken.append(agent_id)
                else:
                    state.withdraw(agent_id)
                    task.epoch, task.worker = epoch, worker
                    state.leases[agent_id] = now + lease_seconds
        return lost

    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        """Forget finished tasks, unless a higher epoch holds them."""
        _refuse_transaction(transaction)
        with self._lock:
            state = self._queue(queue)
            for agent_id, epoch in leases:
                task = state.tasks.get(agent_id)
                if task is not None and task.epoch <= epoch:
                    state.withdraw(agent_id)
                    del state.tasks[agent_id]

    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        """Give a task back: to the front of its priority, or after `delay` seconds. False if not ours any more."""
        with self._lock:
            state = self._queue(queue)
            task = state.tasks.get(lease.agent_id)
            if task is None or task.epoch > lease.epoch or lease.agent_id not in state.leases:
                return False
            state.withdraw(lease.agent_id)
            task.epoch, task.worker = lease.epoch, ""
            if delay > 0:
                state.delayed[lease.agent_id] = self._clock() + delay
            else:
                lane = state.ready[task.priority]
                lane[lease.agent_id] = None
                lane.move_to_end(lease.agent_id, last=False)
            state.news.notify()
            return True

    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Make delayed tasks ready now, and wake workers; tasks that are ready, leased or unknown stay as they are."""
        with self._lock:
            state = self._queue(queue)
            for agent_id in agent_ids:
                if state.delayed.pop(agent_id, None) is not None:
                    state.ready[state.tasks[agent_id].priority][agent_id] = None
            state.news.notify(len(agent_ids))

    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        """Note running tasks that the index does not know, as leased to nobody."""
        with self._lock:
            state, lapse = self._queue(queue), self._clock() + lease_seconds
            for entry in entries:
                if entry.agent_id not in state.tasks:
                    state.tasks[entry.agent_id] = _Task(entry.epoch, Priority(entry.priority))
                    state.leases[entry.agent_id] = lapse

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        """Leases whose time has passed (nothing is changed), oldest first."""
        with self._lock:
            state, now = self._queue(queue), self._clock()
            passed = sorted((lapse, agent_id) for agent_id, lapse in state.leases.items() if lapse <= now)
            return [Lease(agent_id, state.tasks[agent_id].epoch) for _, agent_id in passed[:limit]]

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        """The leases of one worker."""
        with self._lock:
            tasks = self._queue(queue).tasks
            return [Lease(agent_id, task.epoch) for agent_id, task in tasks.items() if task.worker == worker]

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Take tasks out, whatever their state. Returns the workers that held leases on any of them."""
        holders: dict[UUID, str] = {}
        with self._lock:
            state = self._queue(queue)
            for agent_id in agent_ids:
                task = state.tasks.pop(agent_id, None)
                state.withdraw(agent_id)
                if task is not None and task.worker:
                    holders[agent_id] = task.worker
        return holders

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Those of `agent_ids` that the index does not know."""
        with self._lock:
            tasks = self._queue(queue).tasks
            return [agent_id for agent_id in agent_ids if agent_id not in tasks]

    def depth(self, queue: str) -> Depth:
        """Count the tasks of a queue."""
        with self._lock:
            state = self._queue(queue)
            state.promote(self._clock())
            return Depth(sum(map(len, state.ready.values())), len(state.delayed), len(state.leases))

    def is_intact(self, queue: str) -> bool:
        """False if the index was emptied since `mark_intact`."""
        with self._lock:
            return self._queue(queue).intact

    def mark_intact(self, queue: str) -> None:
        """Note that the index of a queue is whole."""
        with self._lock:
            self._queue(queue).intact = True

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Have `mailbox` told when these tasks are done. A watch lapses after an hour unless repeated."""
        with self._lock:
            watches, lapses = self._queue(queue).watches, self._clock() + WATCH_SECONDS
            for agent_id in agent_ids:
                watches[agent_id][mailbox] = lapses

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Send `done <agent_id>` to every mailbox that watches one of these tasks, and end the watches."""
        with self._lock:
            watches, now = self._queue(queue).watches, self._clock()
            for agent_id in agent_ids:
                for mailbox, lapses in watches.pop(agent_id, {}).items():
                    if lapses > now:
                        self.send(mailbox, [format_message(DONE, agent_id)])

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        """Put messages into a mailbox. Mailboxes nobody reads vanish after a minute."""
        with self._lock:
            now = self._clock()
            for name in [name for name, box in self._mailboxes.items() if box.since + MAIL_SECONDS < now]:
                del self._mailboxes[name]
            if messages:
                box = self._mailboxes[mailbox]
                box.since = box.since or now
                box.messages.extend(messages)
                self._mail_came.notify_all()

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        """Wait up to `timeout` seconds for messages, and take all of them, oldest first."""
        with self._lock:
            self._mail_came.wait_for(lambda: mailbox in self._mailboxes, max(0.0, timeout))
            return self._mailboxes.pop(mailbox, _Mailbox()).messages

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        """Append short-lived events to those of each task, and tell its followers."""
        with self._lock:
            state, now = self._queue(queue), self._clock()
            for agent_id in [one for one, c in state.channels.items() if c.last_at + EVENT_TTL_SECONDS < now]:
                del state.channels[agent_id]
            for agent_id, texts in events.items():
                channel = state.channels.setdefault(agent_id, _Channel())
                # By the clock at first, so that a channel that begins anew goes on above the one that is gone.
                last = channel.events[-1].number if channel.events else int(now * 1_000_000)
                channel.events.extend(Event(last + place, text) for place, text in enumerate(texts, 1))
                channel.last_at = now
                for mailbox, lapses in state.follows.get(agent_id, {}).items():
                    if lapses > now:
                        self.send(mailbox, [format_message(EVENTS, agent_id)])

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        """For each task the events kept whose number is above the one given, oldest first."""
        with self._lock:
            channels, now = self._queue(queue).channels, self._clock()
            found: dict[UUID, list[Event]] = {}
            for agent_id, number in after.items():
                channel = channels.get(agent_id)
                if channel is not None and channel.last_at + EVENT_TTL_SECONDS >= now:
                    newer = [event for event in channel.events if event.number > number]
                    if newer:
                        found[agent_id] = newer
            return found

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Have `mailbox` told of events of these tasks, for FOLLOW_TTL_SECONDS."""
        with self._lock:
            follows, now = self._queue(queue).follows, self._clock()
            for agent_id in [one for one, boxes in follows.items() if max(boxes.values()) <= now]:
                del follows[agent_id]
            for agent_id in agent_ids:
                follows[agent_id][mailbox] = now + FOLLOW_TTL_SECONDS

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Those of `agent_ids` that some mailbox follows."""
        with self._lock:
            follows, now = self._queue(queue).follows, self._clock()
            return {one for one in agent_ids if one in follows and max(follows[one].values()) > now}

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        """Take or keep a leadership for `seconds`; False if another owner holds it."""
        with self._lock:
            now = self._clock()
            holder, until = self._leaders.get(role, ("", 0.0))
            if holder != owner and until > now:
                return False
            self._leaders[role] = (owner, now + seconds)
            return True

    def release_leadership(self, role: str, owner: str) -> None:
        """Give a leadership up, if held by `owner`."""
        with self._lock:
            if self._leaders.get(role, ("", 0.0))[0] == owner:
                del self._leaders[role]

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        """Take amounts of token buckets, all of them or none; see `StateBackend.reserve`."""
        return self._take(demands, max_wait)

    def settle(self, demands: Sequence[Demand]) -> None:
        """Correct what was reserved, at once."""
        self._take(demands, None)

    def _take(self, demands: Sequence[Demand], max_wait: float | None) -> float:
        with self._lock:
            now = round(self._clock() * MICROS_PER_SECOND)
            spent = [spend(self._buckets.get(demand.name), now, demand) for demand in demands]
            wait = max((one for one, _ in spent), default=0) / MICROS_PER_SECOND
            if max_wait is None or wait <= max_wait:
                for demand, (_, full_at) in zip(demands, spent, strict=True):
                    self._buckets[demand.name] = full_at
            return wait

    def _queue(self, name: str) -> _Queue:
        if self._single_queue:
            name = ""
        state = self._queues.get(name)
        if state is None:
            state = self._queues[name] = _Queue(self._lock)
        return state


def _refuse_transaction(transaction: object) -> None:
    if transaction is not None:
        raise UsageError(
            "The memory backend cannot join a database transaction; call it without transaction=."
        )
