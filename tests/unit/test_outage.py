"""A loop that fails logs the first failure and the recovery, and waits longer each time."""

from __future__ import annotations

import logging

import pytest

from agentexec.outage import Outage, backoff

log = logging.getLogger("agentexec.test_outage")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_wait_doubles_up_to_its_maximum() -> None:
    assert [backoff(failures) for failures in (1, 2, 3, 10_000)] == [0.1, 0.2, 0.4, 5.0]
    assert backoff(3, initial=1.0, maximum=2.5) == 2.5


def test_only_the_first_failure_and_the_recovery_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, log.name)
    outage = Outage(log, recovered="Connected again.")
    outage.recovered()
    for number in range(3):
        outage.failed("Cannot connect (%d).", number)
    outage.recovered()
    outage.recovered()
    assert messages(caplog) == ["Cannot connect (0).", "Connected again."]
    outage.failed("Cannot connect (%d).", 9)
    assert messages(caplog)[2:] == ["Cannot connect (9)."], "a second outage is logged like the first"


def test_the_level_of_the_first_failure_is_the_callers(caplog: pytest.LogCaptureFixture) -> None:
    Outage(log, level=logging.ERROR).failed("Nothing is fetched.")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_waits_are_spread_and_never_longer_than_the_maximum() -> None:
    outage = Outage(log, maximum=2.0)
    waits = [outage.failed("Down.") for _ in range(50)]
    assert all(0.8 * backoff(n, maximum=2.0) <= wait <= 2.0 for n, wait in enumerate(waits, start=1))
    assert len({round(wait, 6) for wait in waits[10:]}) > 10, "processes that failed together return apart"


def test_a_recovery_resets_the_wait() -> None:
    outage = Outage(log)
    for _ in range(10):
        outage.failed("Down.")
    outage.recovered()
    assert outage.failures == 0
    assert outage.failed("Down.") <= 0.1
