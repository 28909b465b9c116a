"""The maintenance process reports what it finds, settles the deaths that it hears of, and outlives outages."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from agentexec.config import Settings
from agentexec.errors import SchemaError, UnavailableError
from agentexec.task import Status
from agentexec.worker.maintenance import Maintenance
from tests.unit.worker.record import QUEUE, Record, open_record
from tests.waiting import patient, wait_until


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


class Host:
    """A maintenance loop in a thread, and the supervisor's end of its socket."""

    def __init__(self, record: Record, queue: str = QUEUE) -> None:
        self.supervisor, theirs = socket.socketpair()
        self.supervisor.settimeout(patient(20))
        self.maintenance = Maintenance(
            record.runtime, Settings(queue_name=queue), "owner", theirs, connect_timeout=1.0
        )
        self.code: int | None = None
        self._lines = self.supervisor.makefile("r")
        self._thread = threading.Thread(target=self._run)

    def start(self) -> Any:
        self._thread.start()
        return self.hear()

    def hear(self) -> Any:
        """Return the next message, except that a first turn has ended: on a slow machine it comes at any time."""
        while (message := json.loads(self._lines.readline())) == {"reconciled": True}:
            pass
        return message

    def say(self, **message: Any) -> None:
        self.supervisor.sendall(json.dumps(message).encode() + b"\n")

    def join(self) -> int | None:
        self._thread.join(20)
        self._lines.close()
        self.supervisor.close()
        return self.code

    def _run(self) -> None:
        self.code = self.maintenance.run()


@pytest.fixture
def no_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    # It refuses the memory backend, which is for tests only.
    monkeypatch.setattr("agentexec.worker.maintenance.preflight", lambda *_: None)


@pytest.mark.usefixtures("no_preflight")
def test_the_tasks_of_a_dead_worker_are_returned_and_its_death_is_settled(record: Record) -> None:
    tasks = record.start(2)
    host = Host(record)
    assert host.start() == {"ready": True}
    host.say(dead="worker", reason="was killed by SIGKILL")
    assert host.hear() == {"settled": "worker"}
    assert record.statuses(tasks) == [Status.QUEUED] * 2
    host.say(stop=True)
    assert host.join() == 0


@pytest.mark.usefixtures("no_preflight")
def test_the_tasks_of_a_worker_of_former_code_are_returned_to_a_queue_that_the_new_code_does_not_serve(
    record: Record,
) -> None:
    tasks = record.start(2)
    host = Host(record, "renamed")
    assert host.start() == {"ready": True}
    host.say(former_queues=[QUEUE])
    host.say(dead="worker", reason="was killed by SIGKILL")
    while host.hear() != {"settled": "worker"}:
        pass  # it may have reconciled before
    assert record.statuses(tasks) == [Status.QUEUED] * 2
    host.say(stop=True)
    assert host.join() == 0


@pytest.mark.usefixtures("no_preflight")
def test_without_its_supervisor_it_ends(record: Record) -> None:
    host = Host(record)
    host.start()
    host.supervisor.shutdown(socket.SHUT_WR)
    assert host.join() == 0


def test_a_failed_preflight_is_reported_with_its_exit_code(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SchemaError("The tables are missing.")

    monkeypatch.setattr("agentexec.worker.maintenance.preflight", fail)
    host = Host(record)
    assert host.start() == {"failed": "The tables are missing.", "exit_code": 5, "error": "SchemaError"}
    assert host.join() == SchemaError.exit_code


@pytest.mark.usefixtures("no_preflight")
def test_an_outage_is_logged_once_until_a_turn_succeeds(
    record: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agentexec.worker.maintenance.TURN_SECONDS", 0.01)
    failures_left = 4

    def fail_first(*_: object) -> None:
        nonlocal failures_left
        if failures_left:
            failures_left -= 1
            raise UnavailableError("The server is away.")

    monkeypatch.setattr("agentexec.worker.reconciler.Reconciler.run_once", fail_first)
    host = Host(record)
    with caplog.at_level(logging.INFO, "agentexec.maintenance"):
        host.start()
        wait_until(lambda: len(caplog.records) == 2, timeout=20)
        host.maintenance.stop()
        assert host.join() == 0
    assert [line.getMessage() for line in caplog.records] == [
        "The server is away. Maintenance waits for it.",
        "Maintenance resumed.",
    ]
