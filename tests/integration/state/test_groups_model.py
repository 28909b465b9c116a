"""Locks and limits of every backend against a model: who may be let in, and that everybody is in the end.

No lease expires within a run, so nothing depends on the clock.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID, uuid4

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentexec.task import Entry, Lease, Priority, groups_of, new_agent_id
from tests.integration.state.test_backend_model import BOUNDED, ENDLESS

NAME, AT_ONCE = "work", 2
"""Name of the tasks with limits, and the number of them that may be leased at once in each limit."""

locks = st.sampled_from([None, "a", "b"])
keys = st.sampled_from([None, "x", "y"])


class GroupsMachine(RuleBasedStateMachine):
    """Calls to a backend. Each task is in one of `waiting`, `leased`, `delayed`; all have one priority."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self.backend = backend
        self.queue = f"groups-{uuid4().hex}"
        backend.mark_intact(self.queue)  # before that, no lock is given away
        self.groups: dict[UUID, tuple[str | None, str | None]] = {}
        self.waiting: list[UUID] = []
        self.leased: dict[UUID, Lease] = {}
        self.delayed: dict[UUID, Lease] = {}
        self.holders: dict[str, UUID] = {}
        self.arrivals: list[UUID] = []

    @rule(lock=locks, key=keys, count=st.integers(1, 3))
    def push(self, lock: str | None, key: str | None, count: int) -> None:
        for _ in range(count):
            agent_id = new_agent_id()
            entry = Entry(agent_id, Priority.LOW, groups=groups_of(NAME, lock, key))
            self.backend.push(self.queue, [entry])
            self.groups[agent_id] = lock, key
            self.waiting.append(agent_id)
            self.arrivals.append(agent_id)

    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        leases = self._claim(limit)
        if len(leases) < limit:
            left_out = [agent_id for agent_id in self.waiting if self._may_start(agent_id)]
            assert not left_out, "nothing keeps them from starting"

    def _claim(self, limit: int) -> list[Lease]:
        claimed = self.backend.claim(
            self.queue, "worker", limit=limit, low_quota=0, lease_seconds=ENDLESS, limits={NAME: AT_ONCE}
        )
        for lease in claimed.leases:
            assert lease.agent_id in self.waiting, "it is leased or delayed, or has ended"
            assert self._may_start(lease.agent_id)
            self.waiting.remove(lease.agent_id)
            self.leased[lease.agent_id] = lease
            lock, _ = self.groups[lease.agent_id]
            if lock is not None:
                self.holders[lock] = lease.agent_id
        return claimed.leases

    def _may_start(self, agent_id: UUID) -> bool:
        lock, key = self.groups[agent_id]
        if key is not None and sum(self.groups[other][1] == key for other in self.leased) >= AT_ONCE:
            return False
        if lock is None:
            return True
        line = [other for other in self.arrivals if self.groups[other][0] == lock]
        return self.holders.get(lock, line[0]) == agent_id

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        agent_id = data.draw(st.sampled_from(list(self.leased)))
        self.backend.finish(self.queue, [self.leased.pop(agent_id)])
        self._forget(agent_id)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), delayed=st.booleans())
    def release(self, data: st.DataObject, delayed: bool) -> None:
        agent_id = data.draw(st.sampled_from(list(self.leased)))
        lease = self.leased.pop(agent_id)
        assert self.backend.release(self.queue, lease, delay=ENDLESS if delayed else 0.0)
        if delayed:
            self.delayed[agent_id] = lease
        else:
            self.waiting.insert(0, agent_id)

    @rule()
    def make_ready(self) -> None:
        self.backend.make_ready(self.queue, list(self.delayed))
        self.waiting += self.delayed
        self.delayed.clear()

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        agent_id = data.draw(st.sampled_from(list(self.groups)))
        self.backend.remove(self.queue, [agent_id])
        self.leased.pop(agent_id, None)
        self.delayed.pop(agent_id, None)
        if agent_id in self.waiting:
            self.waiting.remove(agent_id)
        self._forget(agent_id)

    def _forget(self, agent_id: UUID) -> None:
        lock, _ = self.groups.pop(agent_id)
        self.arrivals.remove(agent_id)
        if lock is not None and self.holders.get(lock) == agent_id:
            del self.holders[lock]

    @invariant()
    def every_task_is_known(self) -> None:
        depth = self.backend.depth(self.queue)
        assert (depth.delayed, depth.leased) == (len(self.delayed), len(self.leased))
        assert depth.ready + depth.waiting == len(self.waiting)

    def teardown(self) -> None:
        """Everybody comes in in the end: nothing waits for what has gone."""
        self.make_ready()
        for _ in range(len(self.groups) + 1):
            for agent_id in list(self.leased):
                self.backend.finish(self.queue, [self.leased.pop(agent_id)])
                self._forget(agent_id)
            self._claim(10)
        assert not self.groups


def test_every_backend_agrees_with_the_model(modeled_backend: Any) -> None:
    factory: Any = partial(GroupsMachine, modeled_backend)
    run_state_machine_as_test(factory, settings=BOUNDED)
