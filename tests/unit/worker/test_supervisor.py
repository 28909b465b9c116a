"""The supervisor hears what its processes say in an order that makes sense."""

from __future__ import annotations

import json
import logging
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agentexec.config import Settings
from agentexec.worker import template_handle
from agentexec.worker.channel import Channel
from agentexec.worker.child_processes import ChildProcess
from agentexec.worker.generation import Generation
from agentexec.worker.machine import Host
from agentexec.worker.supervisor import Supervisor
from agentexec.worker.target import Target
from agentexec.worker.template import SUPERVISOR_SETTINGS
from agentexec.worker.template_handle import TemplateHandle, TemplateStarts
from tests.waiting import patient, wait_until


class FakeTemplate:
    """A template handle of which only the channel to the maintenance process is used."""

    def __init__(self, maintenance: Channel) -> None:
        self.maintenance = maintenance
        self.channels = [maintenance]


def test_the_last_words_of_the_maintenance_process_come_before_its_death(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor(Target("worker"), Settings(num_workers=1))
    ours, theirs = socket.socketpair()
    template = FakeTemplate(Channel(ours))
    processes = supervisor._processes
    generation = Generation(cast(TemplateHandle, template), supervisor._children.maintenance)
    processes._generations.current = generation
    processes.selector.register(template.maintenance, selectors.EVENT_READ)
    supervisor._children.maintenance.request("the-first", generation)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with ours, theirs, processes.selector, caplog.at_level(logging.INFO):
        theirs.sendall(json.dumps({"failed": "The database is too old.", "exit_code": 5}).encode() + b"\n")
        processes._act_on({"forked": "the-first", "pid": gone.pid}, generation)
    assert processes.failed == 5
    assert [record.getMessage() for record in caplog.records] == ["The database is too old."]


def test_the_names_of_processes_tell_the_timeout_that_the_module_has_set() -> None:
    supervisor = Supervisor(Target("worker"), Settings(num_workers=1))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        template = SimpleNamespace(control=Channel(ours))
        generation = Generation(cast(TemplateHandle, template), supervisor._children.maintenance)
        generation.settings = {"host_timeout": 300.0}
        supervisor._processes._generations.current = generation
        supervisor._processes._note_loaded(generation)
        supervisor._processes._child_starts.request(supervisor._children.maintenance)
    host = Host.of(supervisor._children.maintenance.id)
    assert host is not None
    assert host.timeout == 300.0
    assert "host_timeout" in SUPERVISOR_SETTINGS


def test_a_supervisor_that_waits_for_its_processes_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that loads slowly, or a server that is away, must not keep its loop spinning."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.chdir(tmp_path)
    supervisor, turns = Supervisor(Target.parse("slow_module"), Settings(num_workers=1)), 0

    def count(*_: object) -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(supervisor, "_beat", count)
    assert supervisor.run(handle_signals=False) == 2, "it has no pool"
    assert 0 < turns < 20


COUNTS_LOADS = """
import os, pathlib, signal, sys, time
loads = pathlib.Path("loads")
number = len(loads.read_text()) + 1 if loads.exists() else 1
loads.write_text("x" * number)
"""

KILLED_TWICE = "if number <= 2: os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Supervisor]:
    """Make a supervisor for a module that consists of the given code, after a line that counts its loads."""
    monkeypatch.chdir(tmp_path)

    def make(code: str) -> Supervisor:
        (tmp_path / "odd_module.py").write_text(COUNTS_LOADS + code)
        return Supervisor(Target.parse("odd_module"), Settings(num_workers=1))

    return make


@pytest.mark.parametrize(
    ("code", "loads", "message"),
    [
        (f"{KILLED_TWICE}raise KeyError('REGION')", 3, "odd_module cannot be imported: KeyError: 'REGION'"),
        pytest.param(
            "sys.exit(3)", 1, "odd_module cannot be imported: SystemExit: 3", marks=pytest.mark.thorough
        ),
        ("os._exit(3)", 1, "The template process exited with code 3 before it had loaded odd_module."),
        pytest.param(
            "os._exit(0)",
            1,
            "The template process has stopped before it had loaded odd_module.",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_only_a_template_that_was_killed_is_started_again(
    load: Callable[[str], Supervisor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    code: str,
    loads: int,
    message: str,
) -> None:
    """A module that cannot be loaded, or that ends its process, ends the supervisor with the code of a bad module."""
    with caplog.at_level(logging.INFO):
        assert load(code).run(handle_signals=False) == 2
    assert (tmp_path / "loads").read_text() == "x" * loads
    *deaths, last = [record.getMessage() for record in caplog.records]
    assert message in last
    killed = (
        "The template process was killed by SIGKILL (out of memory?) before it had loaded odd_module. "
        "Starting it and all other processes again"
    )
    again = ["now.", "in 0.2 s, as it has died 2 times in a row."]
    assert deaths == [f"{killed} {when}" for when in again[: loads - 1]]


@pytest.mark.parametrize("moment", ["load", "back-off"])
def test_a_stop_while_no_template_is_loaded_takes_effect_immediately(
    load: Callable[[str], Supervisor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    moment: str,
) -> None:
    monkeypatch.setattr(template_handle, "restart_delay", lambda _: 600.0)
    supervisor = load("time.sleep(600)" if moment == "load" else KILLED_TWICE)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run(handle_signals=False)), daemon=True)
    thread.start()
    waited_for = (tmp_path / "loads").exists if moment == "load" else lambda: "in 600.0 s" in caplog.text
    wait_until(waited_for, timeout=60)
    stopped = time.monotonic()
    supervisor.stop()
    thread.join(patient(30))
    assert codes == [0]
    assert time.monotonic() - stopped < 9, "it waits for nothing; a template that listens gets 10 s"
    assert (tmp_path / "loads").read_text() == "x"


def test_templates_that_die_early_start_later_each_time_and_one_that_lasted_is_replaced_at_once() -> None:
    starts, now, waits = TemplateStarts("worker"), 0.0, []
    for loads in (False, False, True, False):
        starts.note_start(now)
        now += 100.0  # a long load does not count as a life
        if loads:
            starts.note_loaded(now)
        starts.note_death("It died", now)
        waits.append(starts.next_at - now)
        now = starts.next_at
    assert waits == [0.0, 0.25, 0.5, 1.0]
    starts.note_start(now)
    starts.note_loaded(now)
    starts.note_death("It died", now + template_handle.YOUNG_SECONDS)
    assert starts.next_at == now + template_handle.YOUNG_SECONDS


def test_a_module_that_takes_long_to_load_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    starts = TemplateStarts("worker")
    starts.note_start(0.0)
    for now in (29.0, 30.0, 31.0):
        starts.warn_if_slow(now)
    assert [record.getMessage() for record in caplog.records] == [
        "Loading worker takes longer than 30 s; no task starts here until it is loaded."
    ]
    starts.note_start(40.0)
    starts.note_loaded(41.0)
    starts.warn_if_slow(100.0)
    assert len(caplog.records) == 1


def test_a_template_that_cannot_be_started_again_for_lack_of_memory_is_tried_again(
    load: Callable[[str], Supervisor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, start = load(KILLED_TWICE), subprocess.Popen
    starts = 0

    def popen(*args: object, **options: object) -> object:
        nonlocal starts
        starts += 1
        if starts == 1:
            return start(*args, **options)  # ty: ignore[no-matching-overload]
        if starts == 3:
            supervisor.stop()
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(template_handle.subprocess, "Popen", popen)
    assert supervisor.run(handle_signals=False) == 0
    assert starts == 3
    assert "cannot be started ([Errno 12] Cannot allocate memory)" in caplog.text


@pytest.mark.thorough
def test_a_host_that_can_fork_no_more_processes_keeps_those_that_it_has(
    load: Callable[[str], Supervisor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The template lives on, with all that came from it, and the process is tried again."""
    code = """
import agentexec
def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork, pool = fork, agentexec.Pool()
"""
    supervisor = load(code)
    thread = threading.Thread(target=supervisor.run, kwargs={"handle_signals": False}, daemon=True)
    thread.start()
    wait_until(lambda: caplog.text.count("maintenance could not be started") >= 3, timeout=60)
    supervisor.stop()
    thread.join(patient(30))
    assert (tmp_path / "loads").read_text() == "x", "the template is still the first one"
    assert "(Resource temporarily unavailable); replacing it in 0.2 s, because it keeps dying" in caplog.text


def test_code_with_another_release_of_agentexec_is_not_rolled_out(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(Target("worker"), Settings(num_workers=1))
    processes = supervisor._processes
    ours, theirs = socket.socketpair()
    killed: list[bool] = []
    with ours, theirs, processes.selector:
        template = SimpleNamespace(control=Channel(ours), channels=[], kill=lambda: killed.append(True))
        incoming = Generation(cast(TemplateHandle, template), ChildProcess("maintenance", is_worker=False))
        processes._generations.incoming = incoming
        processes._act_on({"loaded": True, "forks": True, "settings": {}, "release": "99.0"}, incoming)
    assert processes._generations.incoming is None
    assert killed == [True]
    [record] = caplog.records
    assert record.getMessage().startswith("agentexec 99.0 is installed now, and this worker is ")
