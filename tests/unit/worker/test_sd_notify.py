"""systemd hears what it asked for, and only it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from agentexec.worker import sd_notify
from agentexec.worker.sd_notify import ServiceManager
from tests.waiting import patient


@pytest.fixture
def systemd(tmp_path: Path) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.settimeout(patient(5))
    return receiver


def test_the_watchdog_is_fed_at_half_of_its_time(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(sd_notify.time, "monotonic", lambda: now)
    environment = {
        "NOTIFY_SOCKET": systemd.getsockname(),
        "WATCHDOG_USEC": "10000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    manager = ServiceManager(environment)
    assert environment == {}, "processes that the workers start must not speak for them"
    with systemd:
        manager.beat("Ready.")
        assert systemd.recv(99) == b"WATCHDOG=1\nSTATUS=Ready."
        now += 4.9
        manager.beat("Draining.")
        assert systemd.recv(99) == b"STATUS=Draining."
        now += 0.1
        manager.beat("Draining.")
        assert systemd.recv(99) == b"WATCHDOG=1"


def test_the_watchdog_of_another_process_is_not_fed(systemd: socket.socket) -> None:
    manager = ServiceManager(
        {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "10", "WATCHDOG_PID": "1"}
    )
    with systemd:
        manager.beat("Ready.")
        assert systemd.recv(99) == b"STATUS=Ready."


def test_a_socket_in_the_abstract_namespace_is_reached() -> None:
    name = f"agentexec-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(patient(5))
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).tell("READY=1", "MAINPID=7")
        assert receiver.recv(99) == b"READY=1\nMAINPID=7"


def test_without_a_service_manager_or_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    assert not ServiceManager({}).listens
    ServiceManager({}).beat("Ready.")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "many"}).beat("Ready.")
