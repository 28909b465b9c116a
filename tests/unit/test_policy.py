"""Decisions about claimed tasks, crashes and retries."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentexec.policy import (
    LOW_PRIORITY_INTERVAL,
    MAX_TOTAL_CRASHES,
    Admission,
    CrashCounts,
    admit,
    attribute_crash,
    fits_record,
    leave_delay,
    low_priority_quota,
    retry_delay,
)
from agentexec.task import Status

NO_CRASHES = CrashCounts()


def admitted(
    status: Status,
    recorded: int,
    claimed: int,
    crashes: CrashCounts = NO_CRASHES,
    suspect_running: bool = False,
):
    return admit(
        status=status,
        recorded_epoch=recorded,
        claimed_epoch=claimed,
        crashes=crashes,
        max_crashes=3,
        suspect_running=suspect_running,
    )


def test_a_task_that_no_worker_knew_is_offered_ever_less_often() -> None:
    assert [leave_delay(waited, 1, 0.0) for waited in (0, 2, 10, 60, 600)] == [1.0, 1.0, 5.0, 30.0, 60.0]
    assert leave_delay(600, 1, 1.0) == 48.0
    assert [leave_delay(0, left, 0.0) for left in (50, 5_000, 100_000)] == [1.0, 100.0, 300.0]


def test_a_queued_task_starts():
    assert admitted(Status.QUEUED, 0, 1) == (Admission.START, CrashCounts(0, 0))


@pytest.mark.parametrize("status", [Status.COMPLETE, Status.ERROR, Status.CANCELED])
def test_a_task_that_has_ended_is_only_acknowledged(status):
    assert admitted(status, 1, 2) == (Admission.ACKNOWLEDGE, CrashCounts(0, 0))


@pytest.mark.parametrize("recorded", [2, 3])
def test_a_claim_that_is_not_newer_than_the_record_is_refused(recorded):
    assert admitted(Status.RUNNING, recorded, 2)[0] is Admission.REFUSE


def test_a_task_left_running_under_an_older_epoch_counts_a_crash():
    assert admitted(Status.RUNNING, 1, 2) == (Admission.START, CrashCounts(1, 1))


def test_the_last_allowed_crash_ends_the_task():
    assert admitted(Status.RUNNING, 3, 4, crashes=CrashCounts(2, 2)) == (Admission.FAIL, CrashCounts(3, 3))


def test_crashes_before_the_last_recorded_step_do_not_end_a_task():
    assert admitted(Status.RUNNING, 3, 4, crashes=CrashCounts(7, 1)) == (Admission.START, CrashCounts(8, 2))


def test_even_a_task_that_gets_further_each_time_ends_after_enough_crashes():
    assert not CrashCounts(MAX_TOTAL_CRASHES - 1, 1).exceed_limit(3)
    assert CrashCounts(MAX_TOTAL_CRASHES, 1).exceed_limit(3)
    assert not CrashCounts(MAX_TOTAL_CRASHES, 1).exceed_limit(1000)


def test_a_suspect_waits_while_another_one_runs():
    assert admitted(Status.QUEUED, 2, 3, crashes=CrashCounts(2, 0), suspect_running=True)[0] is Admission.HOLD
    assert (
        admitted(Status.QUEUED, 2, 3, crashes=CrashCounts(1, 1), suspect_running=True)[0] is Admission.START
    )


def test_a_limit_of_one_crash_has_no_suspects():
    assert not CrashCounts(0, 0).is_suspect(1)


def test_a_crash_counts_only_for_the_suspect():
    suspect, other = uuid4(), uuid4()
    assert attribute_crash([(suspect, CrashCounts(2, 0)), (other, CrashCounts())], 3) == {suspect}


def test_a_crash_counts_only_for_the_task_that_is_known_to_have_caused_it():
    suspect, culprit, other = uuid4(), uuid4(), uuid4()
    tasks = [(suspect, CrashCounts(2, 0)), (culprit, CrashCounts()), (other, CrashCounts())]
    assert attribute_crash(tasks, 3, culprit) == {culprit}
    assert attribute_crash(tasks, 3, uuid4()) == {suspect}, "that one did not run there"


def test_without_a_suspect_a_crash_counts_for_every_task():
    tasks = [(uuid4(), CrashCounts()), (uuid4(), CrashCounts(1, 1))]
    assert attribute_crash(tasks, 3) == {agent_id for agent_id, _ in tasks}


@given(st.lists(st.integers(1, 200), max_size=50))
def test_low_gets_its_share_of_any_sequence_of_claims(limits):
    before = low = 0
    for limit in limits:
        low += low_priority_quota(before, limit)
        before += limit
    assert low == before // LOW_PRIORITY_INTERVAL


def test_retries_are_bounded_and_grow():
    delays = [retry_delay(attempt, 4, 0.0) for attempt in range(1, 6)]
    assert delays == [2.0, 4.0, 8.0, 16.0, None]
    assert retry_delay(30, 40, 0.0) == 300.0
    assert retry_delay(1, 1, 1.0) == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("epoch", "leased", "at", "fits"),
    [
        (5, False, 100, True),
        (5, False, 1_060, True),  # due at 1,000, and clocks differ by up to two leases
        (5, False, 1_061, False),
        (6, False, 1_360, True),  # left for other workers, which the record does not know
        (6, False, 1_361, False),
        (4, False, 100, False),
        (10_004, False, 100, True),
        (10_005, False, 100, False),
        (4, True, 100, True),  # its holder renews it under its own epoch
        (5, True, 160, True),
        (5, True, 161, False),
        (5, True, float("inf"), False),
        (10_005, True, 100, True),
        (10_006, True, 100, False),
    ],
)
def test_what_the_queue_says_of_a_task_fits_the_record(epoch, leased, at, fits) -> None:
    assert fits is fits_record(
        recorded_epoch=5, due=1_000, epoch=epoch, leased=leased, at=at, now=100, lease_seconds=30
    )
