"""Decisions about a batch of claims."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from agentexec.activity.changes.admissions import Admissions, decide_admissions
from agentexec.task import Lease, Status

MAX_CRASHES = 3


def row(number: int, **changes: Any) -> SimpleNamespace:
    values = {
        "agent_id": UUID(int=number),
        "status": Status.QUEUED,
        "epoch": 0,
        "crashes": 0,
        "crashes_in_row": 0,
        "agent_type": "work",
        "queue": "queue",
        "context": None,
        "attempt": 0,
    }
    return SimpleNamespace(**{**values, **changes})


def decide(*rows: SimpleNamespace, claims: tuple[int, ...] = (), suspect_running: bool = False) -> Admissions:
    leases = [Lease(row.agent_id, 1) for row in rows] + [Lease(UUID(int=number), 1) for number in claims]
    return decide_admissions(leases, rows, max_crashes=MAX_CRASHES, suspect_running=suspect_running)


def test_a_queued_task_starts_its_next_attempt() -> None:
    [started] = decide(row(1, attempt=2)).started
    assert (started.lease, started.attempt) == (Lease(UUID(int=1), 1), 3)


def test_a_task_that_has_ended_or_is_unknown_is_acknowledged() -> None:
    admissions = decide(row(1, status=Status.CANCELED), claims=(9,))
    assert admissions.ended == [Lease(UUID(int=1), 1), Lease(UUID(int=9), 1)]


def test_a_stale_claim_is_refused() -> None:
    assert decide(row(1, epoch=1, status=Status.RUNNING)).refused == [Lease(UUID(int=1), 1)]
    assert decide(row(1, epoch=1)).contradicted == [Lease(UUID(int=1), 1)], "nobody runs the task"


def test_one_suspect_starts_and_the_others_are_held() -> None:
    suspects = [row(number, crashes=2) for number in (1, 2)]
    admissions = decide(*suspects)
    assert [admitted.lease.agent_id for admitted in admissions.started] == [UUID(int=1)]
    assert admissions.held == [Lease(UUID(int=2), 1)]
    assert len(decide(*suspects, suspect_running=True).held) == 2


def test_a_task_whose_process_crashed_too_often_is_poisoned() -> None:
    [poisoned] = decide(row(1, status=Status.RUNNING, crashes=2, crashes_in_row=2)).poisoned
    assert (poisoned.lease.agent_id, poisoned.crashes.total) == (UUID(int=1), 3)
