"""Failed attempts are read back from the log lines that tell them."""

from __future__ import annotations

import pytest

from agentexec.activity.failures import FailedAttempt, failed_line, read_failure
from agentexec.task import Status


@pytest.mark.parametrize("reason", ["ValueError: no luck", "a; b\nc starts in 2 s.", ""])
def test_a_line_tells_attempt_limit_and_reason(reason: str) -> None:
    line = failed_line(1, 4, reason, 2.3)
    assert line.startswith("Attempt 1 failed with ") and line.endswith("; attempt 2 of 4 starts in 2 s.")
    assert read_failure(Status.QUEUED, line) == FailedAttempt(1, reason, 4)


def test_lines_of_earlier_releases_and_cut_ones_are_read_too() -> None:
    line = "Attempt 2 failed with ValueError: x; the next one starts in 4 s."
    assert read_failure(Status.QUEUED, line) == FailedAttempt(2, "ValueError: x", None)
    assert read_failure(Status.QUEUED, "Attempt 2 failed with Val…") == FailedAttempt(2, "Val…", None)


def test_a_report_of_the_handler_is_not_a_failure() -> None:
    assert read_failure(Status.RUNNING, failed_line(1, 4, "x", 1)) is None
    assert read_failure(Status.QUEUED, "Waiting to start.") is None
