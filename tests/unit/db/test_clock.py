"""All hosts go by the database's time: a host whose own clock is wrong finds out, and is not misled when it is set right."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from agentexec.db.clock import COMPARE_SECONDS, RecordClock

START = datetime(2026, 1, 1, tzinfo=UTC)


class Host:
    """A host and a server whose clocks differ by `ahead` seconds; a question takes `latency` seconds."""

    def __init__(self, ahead: float = 0.0, latency: float = 0.01) -> None:
        self.ahead, self.latency, self.passed = ahead, latency, 0.0
        self.clock = RecordClock(
            lambda: self.server_time() + timedelta(seconds=self.ahead), lambda: 5000.0 + self.passed
        )

    def server_time(self) -> datetime:
        return START + timedelta(seconds=self.passed)

    def compare(self) -> None:
        def read() -> datetime:
            self.passed += self.latency / 2
            answer = self.server_time()
            self.passed += self.latency / 2
            return answer

        self.clock.compare(read)

    @property
    def error(self) -> float:
        """Seconds by which the time of the record is wrong on this host."""
        return abs((self.clock.now() - self.server_time()).total_seconds())


@pytest.mark.parametrize("ahead", [-86_400.0, -3600.0, -2.0, 2.0, 3600.0])
def test_a_host_whose_clock_is_wrong_goes_by_the_databases(
    ahead: float, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(ahead)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            host.compare()
            host.passed += 100
    assert host.error < 0.01
    assert len(caplog.records) == 1, "it is said once"
    assert ("ahead of" if ahead > 0 else "behind") in caplog.text


def test_a_host_whose_clock_is_right_goes_by_its_own() -> None:
    host = Host(0.3)
    host.compare()
    assert host.clock.now() == host.server_time() + timedelta(seconds=0.3)


def test_a_clock_that_is_set_does_not_mislead() -> None:
    """Set right after it was wrong, or wrong after it was right; it is noticed at the next connection."""
    host = Host(3600)
    host.compare()
    host.ahead = 0.0
    assert host.error < 0.01
    assert host.clock.is_due()
    host.compare()
    assert host.clock.now() == host.server_time()
    assert not host.clock.is_due()
    host.ahead = -3600.0
    assert host.clock.is_due()


def test_the_clocks_are_compared_once_a_minute() -> None:
    host = Host()
    assert host.clock.is_due()
    host.compare()
    host.passed += COMPARE_SECONDS - 1
    assert not host.clock.is_due()
    host.passed += 2
    assert host.clock.is_due()


def test_an_answer_that_took_long_is_not_believed() -> None:
    host = Host(latency=30.0)
    host.compare()
    assert host.clock.now() == host.server_time()


def test_a_server_that_does_not_answer_is_asked_again_a_minute_later() -> None:
    host = Host()

    def fail() -> datetime:
        raise OSError

    with pytest.raises(OSError):
        host.clock.compare(fail)
    assert not host.clock.is_due()
    host.passed += COMPARE_SECONDS + 1
    assert host.clock.is_due()
