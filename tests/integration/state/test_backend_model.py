"""Every backend of agentexec against a model too simple to be wrong, over random sequences of calls.

Like the record, the model pushes and restores a task with the highest epoch ever given out for it. Leases either never
expire or expire immediately, so nothing depends on the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentexec.state.backend import Depth, StateBackend
from agentexec.task import Entry, Lease, Priority, new_agent_id

ENDLESS = 3600.0
LEASE = 30.0
BRIEF = 0.001
TASKS = 6
WORKERS = ("red", "blue")

BOUNDED = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)


@dataclass
class Task:
    epoch: int
    priority: Priority
    worker: str = ""


@dataclass
class Model:
    """Queue as plain lists: each known task is in exactly one of `lanes`, `delayed`, `leased` and `expired`."""

    tasks: dict[UUID, Task] = field(default_factory=dict)
    lanes: dict[Priority, list[UUID]] = field(default_factory=lambda: {priority: [] for priority in Priority})
    delayed: set[UUID] = field(default_factory=set)
    leased: set[UUID] = field(default_factory=set)
    expired: list[UUID] = field(default_factory=list)

    def withdraw(self, agent_id: UUID) -> None:
        for place in (*self.lanes.values(), self.expired):
            if agent_id in place:
                place.remove(agent_id)
        self.delayed.discard(agent_id)
        self.leased.discard(agent_id)

    def place(self, agent_id: UUID, *, brief: bool) -> None:
        self.withdraw(agent_id)
        if brief:
            self.expired.append(agent_id)
        else:
            self.leased.add(agent_id)

    def take(self, limit: int, low: int) -> list[UUID]:
        reserved = self.lanes[Priority.LOW][: min(low, limit)]
        others = [
            agent_id
            for agent_id in self.lanes[Priority.HIGH] + self.lanes[Priority.LOW]
            if agent_id not in reserved
        ]
        return reserved + others[: limit - len(reserved)]


class BackendMachine(RuleBasedStateMachine):
    def __init__(self, backend: StateBackend) -> None:
        super().__init__()
        self.backend = backend
        self.queue = f"model-{uuid4().hex}"
        self.neighbor = f"{self.queue}-neighbor"
        later = time.time() + ENDLESS
        backend.push(self.neighbor, [Entry(new_agent_id()), Entry(new_agent_id(), run_at=later)])
        self.model = Model()
        self.ids = [new_agent_id() for _ in range(TASKS)]
        self.record = dict.fromkeys(self.ids, 0)
        self.held: list[tuple[str, Lease]] = []
        """Every lease ever given out, with its worker."""

    @initialize(high=st.integers(0, 2), low=st.integers(0, 3))
    def start_with_some(self, high: int, low: int) -> None:
        self.push(list(range(high)), Priority.HIGH, delayed=False)
        self.push(list(range(high, high + low)), Priority.LOW, delayed=False)

    @rule(
        tasks=st.lists(st.integers(0, TASKS - 1), max_size=4),
        priority=st.sampled_from(Priority),
        delayed=st.booleans(),
    )
    def push(self, tasks: list[int], priority: Priority, delayed: bool) -> None:
        run_at = time.time() + ENDLESS if delayed else 0.0
        entries = [Entry(self.ids[task], priority, run_at, self.record[self.ids[task]]) for task in tasks]
        self.backend.push(self.queue, entries)
        for entry in entries:
            if entry.agent_id not in self.model.tasks:
                self.model.tasks[entry.agent_id] = Task(entry.epoch, priority)
                if delayed:
                    self.model.delayed.add(entry.agent_id)
                else:
                    self.model.lanes[priority].append(entry.agent_id)

    @rule(
        worker=st.sampled_from(WORKERS), limit=st.integers(0, 4), low=st.integers(0, 2), brief=st.booleans()
    )
    def claim(self, worker: str, limit: int, low: int, brief: bool) -> None:
        expected = self.model.take(limit, low)
        claimed = self.backend.claim(
            self.queue, worker, limit=limit, low_quota=low, lease_seconds=BRIEF if brief else ENDLESS
        )
        order: Callable[[list[Lease]], list[Lease]] = list if low == 0 else sorted
        leases = [Lease(agent_id, self.model.tasks[agent_id].epoch + 1) for agent_id in expected]
        assert order(claimed.leases) == order(leases)
        if len(claimed.leases) < limit:
            assert (claimed.next_due is None) == (not self.model.delayed)
        for lease in claimed.leases:
            assert lease.epoch > self.record[lease.agent_id], "an epoch was given out twice"
            self.record[lease.agent_id] = lease.epoch
            self.held.append((worker, lease))
            task = self.model.tasks[lease.agent_id]
            task.epoch, task.worker = lease.epoch, worker
            self.model.place(lease.agent_id, brief=brief)
        self.let_expire(brief)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS), brief=st.booleans())
    def renew(self, data: st.DataObject, worker: str, brief: bool) -> None:
        mine = [lease for owner, lease in self.held if owner == worker]
        latest = {lease.agent_id: lease for lease in mine}
        leases = data.draw(
            st.lists(st.sampled_from(list(latest.values())), unique=True) if mine else st.just([])
        )
        lost = self.backend.renew(self.queue, worker, leases, BRIEF if brief else ENDLESS)
        for lease in leases:
            task = self.model.tasks.get(lease.agent_id)
            assert (lease.agent_id in lost.missing) == (task is None)
            assert (lease.agent_id in lost.taken) == (task is not None and task.epoch > lease.epoch)
            if task is not None and task.epoch == lease.epoch:
                task.worker = worker
                self.model.place(lease.agent_id, brief=brief)
        self.let_expire(brief)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        leases = [
            lease for _, lease in data.draw(st.lists(st.sampled_from(self.held), min_size=1, max_size=3))
        ]
        self.backend.finish(self.queue, leases)
        for lease in leases:
            task = self.model.tasks.get(lease.agent_id)
            if task is not None and task.epoch <= lease.epoch:
                del self.model.tasks[lease.agent_id]
                self.model.withdraw(lease.agent_id)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delayed=st.booleans())
    def release(self, data: st.DataObject, delayed: bool) -> None:
        _, lease = data.draw(st.sampled_from(self.held))
        task = self.model.tasks.get(lease.agent_id)
        leased = lease.agent_id in self.model.leased or lease.agent_id in self.model.expired
        ours = task is not None and task.epoch == lease.epoch and leased
        assert self.backend.release(self.queue, lease, delay=ENDLESS if delayed else 0.0) == ours
        if task is not None and ours:
            self.model.withdraw(lease.agent_id)
            task.worker = ""
            if delayed:
                self.model.delayed.add(lease.agent_id)
            else:
                self.model.lanes[task.priority].insert(0, lease.agent_id)

    @rule(tasks=st.sets(st.integers(0, TASKS - 1), max_size=2), brief=st.booleans())
    def restore(self, tasks: set[int], brief: bool) -> None:
        entries = [Entry(self.ids[task], Priority.LOW, 0.0, self.record[self.ids[task]]) for task in tasks]
        self.backend.restore(self.queue, entries, BRIEF if brief else ENDLESS)
        for entry in entries:
            if entry.agent_id not in self.model.tasks:
                self.model.tasks[entry.agent_id] = Task(entry.epoch, Priority.LOW)
                self.model.place(entry.agent_id, brief=brief)
        self.let_expire(brief)

    @rule(tasks=st.lists(st.integers(0, TASKS - 1), max_size=3, unique=True))
    def make_ready(self, tasks: list[int]) -> None:
        # One at a time: which of several comes first is left to the backend.
        for agent_id in (self.ids[task] for task in tasks):
            self.backend.make_ready(self.queue, [agent_id])
            if agent_id in self.model.delayed:
                self.model.delayed.remove(agent_id)
                self.model.lanes[self.model.tasks[agent_id].priority].append(agent_id)

    @rule(ahead=st.integers(-2, 2), due=st.booleans())
    def compare(self, ahead: int, due: bool) -> None:
        """Compare with a record that is ahead of the index or behind it, and that has the delays or not."""
        run_at = 0.0 if due else time.time() + ENDLESS
        entries = [
            Entry(agent_id, Priority.LOW, run_at, max(0, epoch + ahead))
            for agent_id, epoch in self.record.items()
        ]
        found = self.backend.compare(self.queue, entries, LEASE)
        assert sorted(found.missing) == sorted(set(self.ids) - set(self.model.tasks))
        wrong = {entry.agent_id for entry in entries if self._is_wrong(entry, due=due)}
        assert set(found.wrong) == wrong

    def _is_wrong(self, entry: Entry, *, due: bool) -> bool:
        task = self.model.tasks.get(entry.agent_id)
        if task is None:
            return False
        if entry.agent_id in self.model.leased:
            return True  # ENDLESS is longer than any lease
        if entry.agent_id in self.model.expired:
            return False
        return task.epoch < entry.epoch or (due and entry.agent_id in self.model.delayed)

    @rule(tasks=st.sets(st.integers(0, TASKS - 1), max_size=2))
    def remove(self, tasks: set[int]) -> None:
        agent_ids = [self.ids[task] for task in tasks]
        removed = {agent_id: self.model.tasks.pop(agent_id, None) for agent_id in agent_ids}
        holders = {agent_id: task.worker for agent_id, task in removed.items() if task and task.worker}
        assert self.backend.remove(self.queue, agent_ids) == holders
        for agent_id in agent_ids:
            self.model.withdraw(agent_id)

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        assert self.backend.unknown_tasks(self.queue, self.ids) == [
            agent_id for agent_id in self.ids if agent_id not in self.model.tasks
        ]
        assert self.backend.depth(self.queue) == Depth(
            ready=sum(map(len, self.model.lanes.values())),
            delayed=len(self.model.delayed),
            leased=len(self.model.leased) + len(self.model.expired),
        )
        listed: set[UUID] = set()
        page = self.backend.list_tasks(self.queue, "")
        listed.update(page.agent_ids)
        while page.cursor:
            page = self.backend.list_tasks(self.queue, page.cursor)
            listed.update(page.agent_ids)
        assert listed == set(self.model.tasks)
        assert self.backend.depth(self.neighbor) == Depth(ready=1, delayed=1, leased=0), "another queue's"
        expired = self.backend.expired_leases(self.queue, 100)
        assert sorted(expired) == sorted(
            Lease(agent_id, self.model.tasks[agent_id].epoch) for agent_id in self.model.expired
        )
        for worker in WORKERS:
            assert sorted(self.backend.worker_leases(self.queue, worker)) == sorted(
                Lease(agent_id, task.epoch)
                for agent_id, task in self.model.tasks.items()
                if task.worker == worker
            )

    def let_expire(self, brief: bool) -> None:
        if brief:
            time.sleep(3 * BRIEF)


def test_every_backend_agrees_with_the_model(modeled_backend: StateBackend) -> None:
    factory: Any = partial(BackendMachine, modeled_backend)
    run_state_machine_as_test(factory, settings=BOUNDED)
