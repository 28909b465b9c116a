"""Thread that receives messages: checks in between, outages, its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from agentexec.activity import receiver as module
from agentexec.activity.receiver import Receiver, new_address
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime
from agentexec.state.memory_backend import MemoryBackend
from tests.waiting import wait_until


class Away(MemoryBackend):
    """Backend that can be out of reach."""

    away = False

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        if self.away:
            raise UnavailableError("Redis is away.")
        return super().receive(mailbox, min(timeout, 0.05))


class Stage:
    """A receiver with what it was told and how often it checked."""

    def __init__(self) -> None:
        runtime = Runtime()
        self.backend = runtime._backend = Away()
        self.messages: list[str] = []
        self.checks = 0
        self.record_checks = 0
        self.fault: Callable[[], None] = lambda: None
        self.receiver = Receiver(
            runtime,
            new_address(),
            name="receiver",
            log=logging.getLogger("agentexec.signals"),
            consequence="Waiting for it.",
            recovered="Received again.",
            handle=self.handle,
            check=self.check,
            check_record=self.check_record,
        )
        self.receiver.start()

    def handle(self, messages: Sequence[str]) -> None:
        self.messages += messages
        if messages:
            self.fault()

    def check(self) -> None:
        self.checks += 1

    def check_record(self) -> None:
        self.record_checks += 1
        raise UnavailableError("The database is away too.")

    def send(self, text: str) -> None:
        self.backend.send(self.receiver.address, [text])


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.backend.away = False
    stage.receiver.close()
    stage.receiver.join(5)


def test_messages_are_handled_as_they_come(stage: Stage) -> None:
    stage.send("one")
    wait_until(lambda: stage.messages == ["one"])
    stage.send("two")
    wait_until(lambda: stage.messages == ["one", "two"])


def test_checks_go_on_under_a_steady_stream_of_messages(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.1)
    stage.receiver._next_check = 0.0
    deadline = time.monotonic() + 10
    while stage.checks < 3 and time.monotonic() < deadline:
        stage.send("more")
        time.sleep(0.01)
    assert stage.checks >= 3


def test_an_outage_is_logged_once_and_the_record_is_checked_meanwhile(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage.backend.away = True
    wait_until(lambda: stage.record_checks >= 2)
    assert stage.checks == 0
    stage.backend.away = False
    wait_until(lambda: stage.checks == 1)
    wait_until(lambda: "Received again." in caplog.text)
    assert [record.message for record in caplog.records] == [
        "Redis is away. Waiting for it.",
        "Received again.",
    ]


def test_an_unexpected_error_does_not_end_the_thread(stage: Stage) -> None:
    def fail() -> None:
        raise ValueError("a fault of the handler")

    stage.fault = fail
    stage.send("one")
    wait_until(lambda: stage.messages == ["one"])
    stage.fault = lambda: None
    stage.send("two")
    wait_until(lambda: stage.messages == ["one", "two"])


def test_a_closed_receiver_ends_its_thread(stage: Stage) -> None:
    stage.receiver.close()
    stage.receiver.join(5)
    assert stage.receiver._thread is not None
    assert not stage.receiver._thread.is_alive()
