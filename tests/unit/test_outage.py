"""A loop that fails logs the first failure and the recovery; calls of a task wait while a server is away."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

import agentexec as ax
from agentexec.outage import PATIENCE, Outage, Patience, backoff, current_patience, wait_out, wait_out_async
from agentexec.task import CURRENT_LEASE, Lease
from tests.waiting import wait_until

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


def test_a_failure_that_comes_and_goes_is_told_twice_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, log.name)
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    outage = Outage(log, recovered="Connected again.")
    for _ in range(120):
        outage.failed("Refused by %s.", "server")
        outage.recovered()
    assert messages(caplog) == ["Refused by server.", "Connected again."] * 4
    outage.failed("Away.")
    assert messages(caplog)[-1] == "Away.", "another reason is told immediately"
    outage.recovered()
    for _ in range(60):
        outage.failed("Away.")
    assert messages(caplog)[-2:] == ["Connected again.", "Away."], "an outage that lasts is always told"


def test_another_reason_of_an_outage_is_told_twice_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    outage = Outage(log)
    for _ in range(10):
        outage.failed("Cannot connect.")
    for _ in range(100):
        outage.failed("It has no table %s.", "agentexec")
    assert messages(caplog) == ["Cannot connect.", "It has no table agentexec."]
    for number in range(60):
        outage.failed("Reason %d.", number)
    assert len(messages(caplog)) == 4


def test_an_unexpected_error_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, log.name)
    outage = Outage(log, recovered="Working again.")

    def fail(kind: type[Exception], number: int) -> None:
        try:
            raise kind(f"try {number}")
        except kind:
            outage.failed_unexpectedly("It failed; trying again.")

    for number in range(100):
        fail(ValueError, number)
    fail(TypeError, 0)
    outage.recovered()
    fail(ValueError, 0)
    told = ["It failed; trying again."]
    assert messages(caplog) == [*told * 2, "Working again.", *told]
    assert caplog.text.count("Traceback") == 3


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


class Server:
    """A server that is away for the first calls."""

    def __init__(self, failures: int, *, contended: bool = False) -> None:
        self.failures = failures
        self.contended = contended
        self.calls = 0

    def call(self, value: str) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            error = ax.UnavailableError("It is away.")
            error.contended = self.contended
            raise error
        return value


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[Patience]:
    """The patience of the running code, which belongs to a task."""
    monkeypatch.setattr("agentexec.outage.backoff", lambda failures, **_: 0.001)
    lease = Lease(uuid4(), 1)
    patience = Patience(lease)
    tokens = CURRENT_LEASE.set(lease), PATIENCE.set(patience)
    yield patience
    CURRENT_LEASE.reset(tokens[0])
    PATIENCE.reset(tokens[1])


def test_outside_a_task_a_call_fails_at_once() -> None:
    server = Server(1)
    with pytest.raises(ax.UnavailableError):
        wait_out(server.call, "done")
    with pytest.raises(ax.UnavailableError):
        asyncio.run(wait_out_async(asyncio.to_thread, Server(1).call, "done"))
    assert server.calls == 1


def test_inside_a_task_a_call_is_repeated_until_the_server_is_back(
    patience: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    assert wait_out(Server(5).call, "done") == "done"
    assert asyncio.run(wait_out_async(asyncio.to_thread, Server(5).call, "done")) == "done"
    assert caplog.text.count("waits until it is back") == 2, "once for each call"


def test_a_call_waits_no_longer_than_its_attempt(patience: Patience) -> None:
    patience.deadline = time.monotonic() + 0.05
    for _ in range(2):
        with pytest.raises(ax.UnavailableError):
            wait_out(Server(10_000).call, "done")
    patience.deadline = math.inf
    patience.end()
    ended = Server(1)
    with pytest.raises(ax.UnavailableError):
        wait_out(ended.call, "done")
    assert ended.calls == 1


def test_the_end_of_an_attempt_ends_its_waits_in_threads(
    patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.outage.backoff", lambda failures, **_: 60.0)
    server = Server(10)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(contextvars.copy_context().run, wait_out, server.call, "done")
        wait_until(lambda: server.calls)
        patience.end()
        assert isinstance(waiting.exception(timeout=30), ax.UnavailableError)


def test_a_call_waits_no_longer_than_its_own_limit(patience: Patience) -> None:
    with pytest.raises(ax.UnavailableError):
        wait_out(Server(10_000).call, "done", limit=0.05)
    with pytest.raises(ax.UnavailableError):
        asyncio.run(wait_out_async(asyncio.to_thread, Server(10_000).call, "done", limit=0.05))


async def test_a_call_that_blocks_its_event_loop_gives_up_on_a_lock_in_the_end(
    patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder of the lock may be another handler on this event loop, which stands still."""
    monkeypatch.setattr("agentexec.outage.BLOCKED_LOOP_SECONDS", 0.05)
    with pytest.raises(ax.UnavailableError):
        wait_out(Server(10_000, contended=True).call, "done")
    assert wait_out(Server(2, contended=True).call, "done") == "done"
    in_thread = asyncio.to_thread(wait_out, Server(100, contended=True).call, "done")
    assert await in_thread == "done"
    assert wait_out(Server(100).call, "done") == "done", "a server that is away holds up everything anyway"


def test_a_call_is_not_repeated_once_another_worker_has_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt makes the call by itself."""
    monkeypatch.setattr("agentexec.outage.backoff", lambda failures, **_: 0.001)
    lease = Lease(uuid4(), 1)

    def check_lease(lease: Lease) -> None:
        raise ax.LeaseLostError(lease.agent_id)

    def run() -> None:
        CURRENT_LEASE.set(lease)
        PATIENCE.set(Patience(lease, check_lease))
        for server, wait in (
            (Server(1), wait_out),
            (Server(1), lambda call, value: asyncio.run(wait_out_async(asyncio.to_thread, call, value))),
        ):
            with pytest.raises(ax.LeaseLostError):
                wait(server.call, "done")
            assert server.calls == 1

    contextvars.copy_context().run(run)


def test_a_forked_child_of_a_handler_does_not_wait(patience: Patience) -> None:
    CURRENT_LEASE.set(None)
    assert current_patience() is None
