"""A call that somebody makes up for never raises, and is told once a minute."""

from __future__ import annotations

import logging

import pytest

from agentexec.errors import UnavailableError
from agentexec.state.best_effort import MAX_REASONS, BestEffort

log = logging.getLogger("agentexec.test_best_effort")


def fail(best_effort: BestEffort, error: BaseException, number: int = 1) -> None:
    with best_effort.guard(log, "%d task(s) wait.", number):
        raise error


def test_the_same_failure_is_logged_once_a_minute_with_the_number_of_the_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    best_effort = BestEffort()
    for number in range(1, 101):
        fail(best_effort, UnavailableError("Redis is away."), number)
    fail(best_effort, UnavailableError("Redis is full."))
    now += 61
    fail(best_effort, UnavailableError("Redis is away."))
    assert [record.getMessage() for record in caplog.records] == [
        "Redis is away. 1 task(s) wait.",
        "Redis is full. 1 task(s) wait.",
        "Redis is away. 1 task(s) wait. (99 more like this since the last line.)",
    ]
    assert "Traceback" not in caplog.text


def test_an_error_that_is_not_ours_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    best_effort = BestEffort()
    for _ in range(3):
        fail(best_effort, AttributeError("no %s attribute password=hunter22\nsecond line"))
    [record] = caplog.records
    assert record.getMessage().startswith(
        "The state backend failed: AttributeError: no %s attribute password="
    )
    assert "hunter22" not in record.getMessage()
    assert caplog.text.count("Traceback") == 1


def test_reasons_without_end_take_bounded_memory() -> None:
    best_effort = BestEffort()
    for number in range(5 * MAX_REASONS):
        fail(best_effort, UnavailableError(f"Redis lacks {number}."))
    assert len(best_effort._quiet) <= MAX_REASONS


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(BestEffort(), KeyboardInterrupt())
