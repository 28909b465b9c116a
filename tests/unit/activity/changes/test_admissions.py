"""Decisions about a batch of claims."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from agentexec.activity.changes.admissions import Admissions, StartTerms, decide_admissions, start_line
from agentexec.task import Lease, Status

MAX_CRASHES = 3
NOW = datetime(2030, 1, 1, tzinfo=UTC)


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
        "started_at": None,
        "expires_at": None,
        "updated_at": NOW,
        "run_at": None,
        "trace_context": None,
        "budget": None,
        "debounce_key": None,
    }
    return SimpleNamespace(**{**values, **changes})


def decide(*rows: SimpleNamespace, claims: tuple[int, ...] = (), suspect_running: bool = False) -> Admissions:
    leases = [Lease(row.agent_id, 1) for row in rows] + [Lease(UUID(int=number), 1) for number in claims]
    terms = StartTerms(NOW, "Started.", MAX_CRASHES)
    return decide_admissions(leases, rows, terms, suspect_running=suspect_running)


def test_a_queued_task_starts_its_next_attempt() -> None:
    [started] = decide(row(1, attempt=2)).started
    assert (started.lease, started.attempt) == (Lease(UUID(int=1), 1), 3)


def test_the_log_says_which_attempt_starts_after_crashes() -> None:
    started = decide(row(1), row(2, attempt=2), row(3, attempt=1, crashes=1)).started
    started += decide(row(4, attempt=4, crashes=2)).started
    assert [start_line("Task started.", admitted) for admitted in started] == [
        "Task started.",
        "Task started.",  # after a failure that was no crash
        "Task started (attempt 2, after a crash).",
        "Task started (attempt 5, after 2 crashes).",
    ]
    assert start_line("Go", started[-1]) == "Go (attempt 5, after 2 crashes)"


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


def test_no_suspect_starts_beside_another_task_of_its_batch() -> None:
    admissions = decide(row(1, crashes=2), row(2), row(3, crashes=1))
    assert [admitted.lease.agent_id for admitted in admissions.started] == [UUID(int=2), UUID(int=3)]
    assert admissions.held == [Lease(UUID(int=1), 1)]


def test_a_task_that_its_last_crash_made_a_suspect_does_not_start_beside_another() -> None:
    admissions = decide(row(1, status=Status.RUNNING, crashes=1), row(2))
    assert [admitted.lease.agent_id for admitted in admissions.started] == [UUID(int=2)]
    assert admissions.held == [Lease(UUID(int=1), 1)]


def test_a_task_whose_process_crashed_too_often_is_poisoned() -> None:
    [poisoned] = decide(row(1, status=Status.RUNNING, crashes=2, crashes_in_row=2)).poisoned
    assert (poisoned.lease.agent_id, poisoned.crashes.total) == (UUID(int=1), 3)


def test_a_task_that_has_not_started_in_time_expires() -> None:
    admissions = decide(row(1, expires_at=NOW), row(2, expires_at=NOW + timedelta(seconds=1)))
    assert [task.agent_id for task in admissions.expired] == [UUID(int=1)]
    assert admissions.ended == [Lease(UUID(int=1), 1)], "it is acknowledged"
    assert [admitted.lease.agent_id for admitted in admissions.started] == [UUID(int=2)]


def test_a_task_that_has_started_once_never_expires() -> None:
    """A worker of the release before leaves the moment in the row."""
    retried = row(1, expires_at=NOW, started_at=NOW, attempt=1)
    crashed = row(2, expires_at=NOW, started_at=NOW, status=Status.RUNNING)
    admissions = decide(retried, crashed)
    assert not admissions.expired
    assert len(admissions.started) == 2


def test_a_debounced_task_waits_until_the_record_lets_it_start() -> None:
    later = NOW + timedelta(seconds=20)
    admissions = decide(
        row(1, debounce_key="doc:1", run_at=later),
        row(2, debounce_key="doc:2", run_at=NOW),
        row(3, run_at=later),  # it waits for an answer, which has come
        row(4, debounce_key="doc:4", run_at=later, started_at=NOW),
    )
    assert [(task.lease.agent_id, task.seconds) for task in admissions.early] == [(UUID(int=1), 20.0)]
    assert len(admissions.started) == 3
