"""Open waits and active calls of one attempt, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agentexec.errors import Postponed, WaitingForApproval, WaitingForEvent
from agentexec.journal.waiting import FAR_FUTURE_SECONDS, ActiveCalls, OpenWaits

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_task_is_back_when_the_first_of_its_waits_ends() -> None:
    waits = OpenWaits()
    with (
        waits.open(None, NOW + timedelta(hours=1)),
        waits.open("event", NOW + timedelta(hours=2)),
        waits.open("approval"),
    ):
        left = waits.leave(WaitingForApproval, "Waiting for approval: charge()", NOW)
    assert isinstance(left, WaitingForApproval)
    assert (left.seconds, str(left)) == (3600, "Waiting for approval: charge()")
    assert left.waiting_for == {"approval", "event"}


def test_a_wait_without_a_time_limit_keeps_a_task_away_until_something_comes() -> None:
    waits = OpenWaits()
    with waits.open("event"):
        assert waits.leave(WaitingForEvent, "", NOW).seconds == FAR_FUTURE_SECONDS


def test_a_wait_that_has_ended_brings_the_task_back_without_delay() -> None:
    waits = OpenWaits()
    with waits.open(None, NOW - timedelta(seconds=1)):
        assert waits.leave(Postponed, "", NOW).seconds == 0


def test_a_wait_counts_no_longer_than_its_block() -> None:
    waits = OpenWaits()
    with waits.open("event", NOW):
        with pytest.raises(ValueError, match="stop"), waits.open("approval", NOW - timedelta(hours=1)):
            raise ValueError("stop")
        assert (waits.kinds, waits.earliest_end) == ({"event"}, NOW)
    assert (waits.kinds, waits.earliest_end) == (set(), None)


def test_a_wait_may_learn_its_end_while_it_is_open() -> None:
    waits = OpenWaits()
    with waits.open("approval") as wait:
        assert waits.earliest_end is None
        wait.ends_at = NOW
        assert waits.earliest_end == NOW


def test_calls_are_idle_only_when_each_of_them_is_suspended() -> None:
    calls, tool, other = ActiveCalls(), object(), object()
    assert calls.idle
    with calls.track(tool):
        assert not calls.idle
        with calls.suspend([tool]):
            assert calls.idle
            with calls.track(other):
                assert not calls.idle
        assert not calls.idle
    assert calls.idle
