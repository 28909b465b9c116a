"""Deaths of worker processes, as the log of a task tells them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentexec.activity.deaths import ended_line, read_death, requeued_line
from agentexec.task import Status

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("reason", "signal"),
    [
        ("was killed by SIGKILL (out of memory?)", "SIGKILL"),
        ("was killed by signal 77", "signal 77"),
        ("exited with code 3", None),
        ("did not answer for 30 s", None),
        ("was killed because it did not stop in time", None),
        ("died with the template process, which was killed by SIGSEGV", "SIGSEGV"),
    ],
)
def test_a_death_is_read_back_from_the_line_that_tells_it(reason: str, signal: str | None) -> None:
    for status, line in (
        (Status.QUEUED, requeued_line(reason)),
        (Status.ERROR, ended_line(reason, "for the 3rd time since its last recorded step (4 times in all)")),
    ):
        assert read_death(NOW, status, line) == (NOW, reason, signal)


def test_a_report_of_the_handler_is_not_a_death() -> None:
    assert read_death(NOW, Status.RUNNING, requeued_line("was killed by SIGKILL")) is None
    assert read_death(NOW, Status.QUEUED, "Waiting to start.") is None
