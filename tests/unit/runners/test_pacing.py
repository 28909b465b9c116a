"""Decisions about failed model calls: retry, give the task back, or raise."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from agentexec.runners.pacing import RetryableFailure, bound_retry_after, call_retry_delay, parse_retry_after


@pytest.mark.parametrize(
    ("failure", "given", "wait"),
    [
        (RetryableFailure(True, 2), {}, 2),
        (
            RetryableFailure(True, 2),
            {"waited": 4},
            6,
        ),  # longer than the rest of max_wait: the task goes back to the queue
        (RetryableFailure(True, 60), {}, 60),
        (RetryableFailure(True, 60), {"caller_retries": True}, 60),
        (RetryableFailure(True, 2), {"caller_retries": True}, None),
        (RetryableFailure(True, 2), {"failures": 9}, 2),
        (RetryableFailure(True, None), {}, 0.5),
        (RetryableFailure(True, None), {"failures": 2}, 1.0),
        (RetryableFailure(True, None), {"failures": 3}, None),
        (RetryableFailure(False, 60), {}, 0.5),
        (RetryableFailure(False, None), {"caller_retries": True}, None),
    ],
)
def test_a_failed_call_is_retried_given_back_or_raised(
    failure: RetryableFailure, given: dict[str, float], wait: float | None
) -> None:
    facts = {"failures": 1, "waited": 0.0, "max_wait": 5.0, "caller_retries": False, **given}
    assert call_retry_delay(failure, **facts) == wait  # type: ignore[arg-type]


def test_retry_after_headers_are_parsed() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_retry_after("1500", "9", now) == 1.5
    assert parse_retry_after(None, "9", now) == 9
    assert parse_retry_after("x", "Thu, 01 Jan 2026 00:01:00 GMT", now) == 60
    assert parse_retry_after(None, "Thu, 01 Jan 2020 00:01:00 GMT", now) == 0
    assert parse_retry_after(None, "soon", now) is None
    assert parse_retry_after(None, None, now) is None
    assert parse_retry_after("nan", "9", now) == 9
    assert parse_retry_after(None, "nan", now) is None
    assert parse_retry_after(None, "1e400", now) == math.inf
    assert parse_retry_after(None, "Thu, 01 Jan 99999 00:01:00 GMT", now) is None


@pytest.mark.parametrize("seconds", [3601, 99999999999, 1e17, math.inf])
def test_a_server_cannot_park_a_task_for_years(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    assert bound_retry_after(seconds, "gpt-4o") == 3600
    assert "The server of gpt-4o asks to wait" in caplog.text
    assert "AGENTEXEC_MAX_RETRY_AFTER" in caplog.text
    caplog.clear()
    assert bound_retry_after(3600, "gpt-4o") == 3600
    assert bound_retry_after(None, "gpt-4o") is None
    assert not caplog.records
