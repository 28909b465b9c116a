"""The server's time by the dates of its replies."""

from __future__ import annotations

from email.utils import formatdate

from agentexec.state.dynamodb_backend.clock import ServerClock


class Host:
    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        self.server_time = 1_000_000.4
        self.clock = ServerClock(lambda: self.server_time + self.ahead)

    def call(self, seconds: float = 0.02) -> None:
        """Call the server, which notes its date halfway."""
        sent = self.clock.local()
        date = formatdate(int(self.server_time + seconds / 2), usegmt=True)
        self.server_time += seconds
        self.clock.note(date, sent)

    @property
    def error(self) -> float:
        return abs(self.clock.now() - self.server_time)


def test_a_wrong_clock_is_corrected_and_a_right_one_kept() -> None:
    for ahead in (-250.0, -3.0, 0.0, 2.0, 250.0):
        host = Host(ahead)
        host.call()
        assert host.error <= (1.1 if ahead else 0.0)
        for _ in range(200):
            host.server_time += 0.173
            host.call()
        assert host.error <= 0.1


def test_a_clock_that_is_set_is_noticed_and_a_date_that_cannot_be_read_is_not() -> None:
    host = Host(100.0)
    host.call()
    host.ahead = 0.0
    host.call()
    host.clock.note("yesterday", 0.0)
    assert host.error <= 1.1
