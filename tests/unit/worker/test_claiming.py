"""The claimer takes as many tasks as slots are free, and none while it drains."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentexec.config import Settings
from agentexec.errors import UnavailableError
from agentexec.state.backend import ClaimResult
from agentexec.state.memory_backend import MemoryBackend
from agentexec.task import Entry, Lease, Priority, new_agent_id
from agentexec.worker.claiming import MAX_WRITER_BACKLOG, Claimer
from agentexec.worker.queue_claims import PAUSED_WAIT
from agentexec.worker.scoreboard import Cell
from agentexec.worker.turnover import Turnover
from tests.unit.worker.parts import Held, admitted, new_lease
from tests.waiting import wait_until

QUEUE = "claims"


class FakeAdmission:
    """Keeps what is admitted; `held` are suspects that wait."""

    def __init__(self, held: Sequence[Lease] = ()) -> None:
        self.batches: list[list[Lease]] = []
        self.held = list(held)
        self.startable = False
        self.leaves_tasks = False
        self.within_claim = None

    @property
    def holds_tasks(self) -> bool:
        return bool(self.held)

    def take_startable(self, paused: frozenset[str]) -> list[Lease]:
        if not self.startable:
            return []
        taken, self.held, self.startable = self.held, [], False
        return taken

    def admit(self, leases: Sequence[Lease]) -> None:
        self.batches.append(list(leases))

    @property
    def admitted(self) -> list[Lease]:
        return [lease for batch in self.batches for lease in batch]


class Backend(MemoryBackend):
    """The memory backend; `wait` returns at once and is counted, and `claim` can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.waited_for: list[Any] = []
        self.errors: list[Exception] = []
        self.wait_errors: list[Exception] = []
        self.broken = ""
        self.claims = 0

    def wait(self, queue: str | Sequence[str], timeout: float) -> None:
        self.waits.append(timeout)
        self.waited_for.append(queue)
        if self.wait_errors:
            raise self.wait_errors.pop(0)

    def claim(
        self, queue: str, worker: str, *, limit: int, low_quota: int, lease_seconds: float
    ) -> ClaimResult:
        self.claims += 1
        if self.errors:
            raise self.errors.pop(0)
        if queue == self.broken:
            raise UnavailableError("This queue is away.")
        return super().claim(queue, worker, limit=limit, low_quota=low_quota, lease_seconds=lease_seconds)

    def enqueue(self, number: int, priority: Priority = Priority.LOW, queue: str = QUEUE) -> None:
        self.push(queue, [Entry(new_agent_id(), priority) for _ in range(number)])


class FakePauses:
    """Pauses that the test sets."""

    def __init__(self) -> None:
        self.queues: frozenset[str] = frozenset()
        self.waits: list[float] = []

    def paused(self) -> frozenset[str]:
        return self.queues

    def wait_for_change(self, known: frozenset[str], timeout: float) -> None:
        self.waits.append(timeout)


class Claims:
    """A claimer with everything around it."""

    def __init__(
        self,
        slots: int = 2,
        held: Sequence[Lease] = (),
        backlog: Callable[[], int] = lambda: 0,
        queues: str = "",
        pauses: FakePauses | None = None,
    ) -> None:
        self.backend = Backend()
        self.holds = Held(slots)
        self.admission = FakeAdmission(held)
        self.draining = threading.Event()
        self.claimer = Claimer(
            self.backend,
            Settings(queue_name=QUEUE, queues=queues),
            "worker",
            slots=self.holds.slots,
            suspects=self.holds.suspects,
            tasks=self.holds.tasks,
            admission=self.admission,
            turnover=Turnover(Cell.alone(), self.holds.slots.free),
            started=lambda: 0,
            on_used_up=lambda: None,
            backlog=backlog,
            draining=self.draining,
            pauses=pauses,
        )

    def stop(self) -> None:
        self.draining.set()
        self.holds.slots.notify()
        self.claimer.wait_until_idle(10)


def test_as_many_tasks_are_claimed_as_slots_are_free() -> None:
    claims = Claims(slots=2)
    claims.backend.enqueue(5)
    assert claims.claimer.claim()
    assert len(claims.admission.admitted) == 2
    assert claims.holds.tasks.all() == claims.admission.admitted, "their leases are renewed from now on"
    assert not claims.claimer.claim(), "no slot is free"
    assert claims.backend.depth(QUEUE).ready == 3


def test_slots_that_a_claim_does_not_use_are_free_again() -> None:
    claims = Claims(slots=5)
    claims.backend.enqueue(2)
    claims.claimer.claim()
    assert claims.holds.free_slots == 3


def test_an_empty_queue_is_waited_for() -> None:
    claims = Claims()
    assert not claims.claimer.claim()
    assert claims.backend.waits == [5.0]
    claims.backend.push(QUEUE, [Entry(new_agent_id(), run_at=time.time() + 1)])
    assert not claims.claimer.claim()
    assert claims.backend.waits[1] <= 1.0, "the next delayed task ends the wait"


def test_a_failed_claim_frees_its_slots() -> None:
    claims = Claims(slots=2)
    claims.backend.errors.append(UnavailableError("The server is away."))
    with pytest.raises(UnavailableError):
        claims.claimer.claim()
    assert claims.holds.free_slots == 2


def test_a_held_task_starts_before_new_ones_and_needs_no_slot() -> None:
    suspect = new_lease()
    claims = Claims(slots=1, held=[suspect])
    claims.holds.start([admitted()])
    claims.backend.enqueue(1)
    assert not claims.claimer.claim(), "no slot is free, and another suspect runs"
    claims.admission.startable = True
    assert claims.claimer.claim()
    assert claims.admission.batches == [[suspect]]


def test_while_a_task_is_held_the_end_of_the_suspect_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentexec.worker.claiming.HELD_WAIT", 0.0)
    claims = Claims(held=[new_lease()])
    assert not claims.claimer.claim()
    assert claims.backend.waits == []


def test_some_claims_go_to_low_priority_first() -> None:
    claims = Claims(slots=32)
    claims.backend.enqueue(40, Priority.HIGH)
    low = [Entry(new_agent_id(), Priority.LOW) for _ in range(3)]
    claims.backend.push(QUEUE, low)
    claims.claimer.claim()
    assert {entry.agent_id for entry in low[:2]} <= {lease.agent_id for lease in claims.admission.admitted}


def test_nothing_is_claimed_while_it_drains() -> None:
    claims = Claims()
    claims.backend.enqueue(1)
    claims.draining.set()
    assert not claims.claimer.claim()
    assert claims.holds.free_slots == 2
    assert claims.backend.depth(QUEUE).ready == 1


def test_the_thread_claims_until_it_drains() -> None:
    claims = Claims(slots=10)
    claims.backend.enqueue(3)
    claims.claimer.start()
    wait_until(lambda: len(claims.admission.admitted) == 3)
    claims.stop()
    claims.backend.enqueue(1)
    assert claims.backend.depth(QUEUE).ready == 1


def test_nothing_is_claimed_while_too_many_endings_are_unwritten() -> None:
    backlog = MAX_WRITER_BACKLOG + 1
    claims = Claims(backlog=lambda: backlog)
    claims.backend.enqueue(1)
    claims.claimer.start()
    assert not claims.admission.admitted
    backlog = 0
    wait_until(lambda: len(claims.admission.admitted) == 1)
    claims.stop()


def test_an_outage_is_logged_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.worker.claiming.OUTAGE_WAIT", 0.0)
    claims = Claims()
    claims.backend.errors += [UnavailableError("The server is away.") for _ in range(3)]
    claims.backend.enqueue(1)
    with caplog.at_level(logging.INFO):
        claims.claimer.start()
        wait_until(lambda: len(caplog.records) > 1)
        claims.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "The server is away. No tasks are claimed until it is back.",
        "Claiming tasks again.",
    ]


def test_an_unexpected_error_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    claims = Claims()
    claims.backend.errors.append(ValueError("nonsense"))
    claims.backend.enqueue(1)
    claims.claimer.start()
    wait_until(lambda: len(claims.admission.admitted) == 1)
    claims.stop()
    assert "nonsense" in caplog.text


def test_several_queues_are_claimed_in_order_and_waited_for_together() -> None:
    claims = Claims(slots=3, queues=f"high,{QUEUE}")
    claims.backend.enqueue(2)
    claims.backend.enqueue(2, queue="high")
    assert claims.claimer.claim()
    admitted_from = [claims.holds.tasks.queue_of(lease.agent_id) for lease in claims.admission.admitted]
    assert admitted_from == ["high", "high", QUEUE]
    claims = Claims(queues=f"high,{QUEUE}")
    assert not claims.claimer.claim()
    assert claims.backend.waited_for == [["high", QUEUE]]


@pytest.mark.parametrize("queues", [f"{QUEUE},broken", f"broken,{QUEUE}", f"broken:1,{QUEUE}:1"])
def test_a_queue_that_fails_keeps_nobody_from_the_others(
    queues: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again later, and the log says once that it is away and that it is back."""
    claims = Claims(slots=9, queues=queues)
    claims.backend.broken = "broken"
    for _ in range(3):
        claims.backend.enqueue(1)
        assert claims.claimer.claim()
    assert len(claims.admission.admitted) == 3
    assert not claims.claimer.claim()
    assert QUEUE in claims.backend.waited_for[-1]
    claims.backend.broken = ""
    claims.backend.enqueue(1, queue="broken")
    with caplog.at_level(logging.INFO):
        wait_until(lambda: claims.claimer.claim())
    assert [record.getMessage() for record in caplog.records] == [
        "This queue is away. Tasks of queue broken are not claimed until it is back; those of others are.",
        "Claiming tasks of queue broken again.",
    ]
    assert not claims.claimer.claim()
    assert "broken" in claims.backend.waited_for[-1]


def test_a_queue_that_is_away_is_neither_waited_for_nor_asked_before_its_next_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agentexec.worker.queue_claims.AWAY_SHARE", math.inf)
    claims = Claims(queues=f"broken,{QUEUE}")
    claims.backend.broken = "broken"
    for _ in range(3):
        assert not claims.claimer.claim()
    assert claims.backend.waited_for == [QUEUE] * 3
    assert claims.backend.claims == 4
    [record] = caplog.records
    assert "This queue is away. Tasks of queue broken are not claimed until it is back" in record.getMessage()


def test_when_no_queue_answers_all_of_them_are_away() -> None:
    claims = Claims(slots=2, queues=f"{QUEUE},other")
    claims.backend.errors += [UnavailableError("The server is away."), UnavailableError("It is.")]
    with pytest.raises(UnavailableError, match=r"The server is away\."):
        claims.claimer.claim()
    assert claims.holds.free_slots == 2
    claims.backend.enqueue(1)
    assert claims.claimer.claim()


def test_a_wait_that_fails_is_followed_by_a_claim_that_finds_the_queue_that_is_away() -> None:
    claims = Claims(queues=f"{QUEUE},other")
    claims.backend.wait_errors += [UnavailableError("A server is away.")] * 2
    assert not claims.claimer.claim()
    with pytest.raises(UnavailableError):  # all queues answer, but waits do not succeed
        claims.claimer.claim()
    assert not claims.claimer.claim()


def test_a_paused_queue_is_neither_claimed_from_nor_waited_for() -> None:
    pauses = FakePauses()
    claims = Claims(queues=f"high,{QUEUE}", pauses=pauses)
    pauses.queues = frozenset({"high"})
    claims.backend.enqueue(1, queue="high")
    assert not claims.claimer.claim()
    assert claims.backend.waited_for == [QUEUE]
    assert claims.backend.waits == [PAUSED_WAIT], "a resumed queue is not waited for any longer"
    pauses.queues = frozenset({"high", QUEUE})
    assert not claims.claimer.claim()
    assert (len(claims.backend.waits), len(pauses.waits)) == (1, 1)
    pauses.queues = frozenset()
    assert claims.claimer.claim()


def test_a_worker_of_one_queue_makes_one_call_for_each_claim_and_wait() -> None:
    claims = Claims(slots=2)
    claims.backend.enqueue(3)
    assert claims.claimer.claim()
    assert (claims.backend.claims, claims.backend.waits) == (1, [])
    for lease in claims.admission.admitted:
        claims.holds.tasks.forget(lease.agent_id)
    assert claims.claimer.claim()
    assert claims.backend.claims == 2
    assert not claims.claimer.claim()
    assert claims.backend.claims == 3
    assert claims.backend.waited_for == [QUEUE], "by its name, as backends of earlier releases expect"
