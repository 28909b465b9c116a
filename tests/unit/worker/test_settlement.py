"""After the commit the queue learns of every ending, and tasks stop holding their leases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentexec.activity.changes.endings import Ending
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime
from agentexec.state.best_effort import BestEffort
from agentexec.state.memory_backend import MemoryBackend
from agentexec.task import Entry, Lease, Status, new_agent_id
from agentexec.worker.settlement import Settlement
from tests.unit.worker.parts import Held, admitted

QUEUE = "settled"


class Settled:
    """A settlement after a claim of three tasks."""

    def __init__(self, on_written: Callable[[Sequence[Ending]], object] | None = None) -> None:
        self.backend = MemoryBackend()
        self.held = Held(slots=3, queue=QUEUE)
        tasks = [admitted(crashes=2), admitted(), admitted()]
        self.backend.push(QUEUE, [Entry(task.lease.agent_id) for task in tasks])
        self.leases = self.backend.claim(QUEUE, "worker", limit=3, low_quota=0, lease_seconds=60).leases
        self.held.start(tasks)
        self.backend.watch(QUEUE, [lease.agent_id for lease in self.leases], "caller")
        runtime = SimpleNamespace(backend=self.backend, engine=None, best_effort=BestEffort().guard)
        self.settlement = Settlement(cast(Runtime, runtime), self.held.tasks, on_written=on_written)

    def ending(self, number: int, status: Status, **more: Any) -> Ending:
        return Ending(self.leases[number], status, "", **more)

    @property
    def messages(self) -> list[str]:
        self.backend.send("caller", ["end"])
        return self.backend.receive("caller", 0)[:-1]


def test_a_finished_task_is_acknowledged_and_its_callers_are_notified() -> None:
    settled = Settled()
    settled.settlement.settle([settled.ending(0, Status.COMPLETE), settled.ending(1, Status.ERROR)], [])
    assert settled.backend.unknown_tasks(QUEUE, [lease.agent_id for lease in settled.leases]) == [
        settled.leases[0].agent_id,
        settled.leases[1].agent_id,
    ]
    assert settled.messages == [f"done {lease.agent_id}" for lease in settled.leases[:2]]
    assert settled.held.tasks.all() == [settled.leases[2]]
    assert not settled.held.suspects.any_running, "the first one was a suspect"


def test_a_task_to_be_tried_again_goes_back_to_the_queue() -> None:
    settled = Settled()
    settled.settlement.settle(
        [settled.ending(0, Status.QUEUED), settled.ending(1, Status.QUEUED, delay=60.0)], []
    )
    depth = settled.backend.depth(QUEUE)
    assert (depth.ready, depth.delayed) == (1, 1)
    assert settled.messages == []
    assert settled.held.tasks.all() == [settled.leases[2]]


def test_a_refused_ending_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    settled = Settled()
    with caplog.at_level(logging.WARNING):
        settled.settlement.settle([], [settled.ending(0, Status.COMPLETE)])
    assert str(settled.leases[0].agent_id) in caplog.text
    assert settled.backend.depth(QUEUE).leased == 3, "the task belongs to another worker"
    assert settled.held.tasks.all() == settled.leases[1:]


def test_an_answer_that_came_before_the_release_makes_the_task_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    settled = Settled()
    answered = settled.leases[0].agent_id
    monkeypatch.setattr("agentexec.worker.settlement.ready_tasks", lambda _engine, _waiting: [answered])
    kinds = frozenset({"approval"})
    settled.settlement.settle(
        [settled.ending(n, Status.QUEUED, delay=60.0, awaited_kinds=kinds) for n in (0, 1)], []
    )
    depth = settled.backend.depth(QUEUE)
    assert (depth.ready, depth.delayed) == (1, 1)


def test_written_endings_are_reported_before_the_queue_learns_of_them() -> None:
    reported: list[tuple[list[Lease], int]] = []

    def report(written: Sequence[Ending]) -> None:
        reported.append(([ending.lease for ending in written], settled.backend.depth(QUEUE).leased))

    settled = Settled(on_written=report)
    settled.settlement.settle([settled.ending(0, Status.COMPLETE)], [settled.ending(1, Status.ERROR)])
    assert reported == [([settled.leases[0]], 3)]


def test_in_a_transaction_only_final_endings_are_acknowledged() -> None:
    settled = Settled()
    calls: list[tuple[Any, Any]] = []
    settled.backend.finish = lambda queue, leases, *, transaction: calls.append((leases, transaction))  # ty: ignore[invalid-assignment]
    connection: Any = object()
    settled.settlement.acknowledge(connection, [settled.ending(0, Status.QUEUED)])
    assert calls == []
    settled.settlement.acknowledge(
        connection, [settled.ending(0, Status.QUEUED), settled.ending(1, Status.COMPLETE)]
    )
    assert calls == [([settled.leases[1]], connection)]


def test_a_backend_that_fails_keeps_no_ending_from_being_settled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error would make the writer write the endings, which are in the record, once more."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("a bug of the client")

    settled = Settled()
    monkeypatch.setattr(settled.backend, "finish", fail)
    monkeypatch.setattr(settled.backend, "release", fail)
    settled.settlement.settle([settled.ending(0, Status.COMPLETE), settled.ending(1, Status.QUEUED)], [])
    assert settled.held.tasks.all() == [settled.leases[2]]
    assert "The reconciler will acknowledge 1 finished task(s)." in caplog.text
    assert "1 task(s) return to the queue when their leases expire." in caplog.text


def test_tasks_of_several_queues_are_settled_in_their_own() -> None:
    settled = Settled()
    settled.backend.push("other", [Entry(new_agent_id()) for _ in range(2)])
    leases = settled.backend.claim("other", "worker", limit=2, low_quota=0, lease_seconds=60).leases
    settled.held.tasks.add(leases, queue="other")
    settled.backend.watch("other", [leases[0].agent_id], "caller")
    ended = Ending(leases[0], Status.COMPLETE, "")
    again = Ending(leases[1], Status.QUEUED, "")
    settled.settlement.settle([settled.ending(0, Status.COMPLETE), ended, again], [])
    assert settled.messages == [f"done {lease.agent_id}" for lease in (settled.leases[0], leases[0])]
    assert settled.backend.depth(QUEUE).leased == 2
    depth = settled.backend.depth("other")
    assert (depth.ready, depth.leased) == (1, 0)


def test_a_queue_that_is_away_keeps_no_task_of_another_from_going_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settled = Settled()
    settled.backend.push("other", [Entry(new_agent_id())])
    leases = settled.backend.claim("other", "worker", limit=1, low_quota=0, lease_seconds=60).leases
    settled.held.tasks.add(leases, queue="other")
    release = settled.backend.release

    def refuse(queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        if queue == QUEUE:
            raise UnavailableError("its shard is away")
        return release(queue, lease, delay=delay)

    monkeypatch.setattr(settled.backend, "release", refuse)
    settled.settlement.settle([settled.ending(0, Status.QUEUED), Ending(leases[0], Status.QUEUED, "")], [])
    assert settled.backend.depth("other").ready == 1
