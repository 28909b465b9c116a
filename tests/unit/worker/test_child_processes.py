"""A place for a process remembers why the last one ended, and starts the next one later if they die young."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator

import pytest

from agentexec.worker.child_processes import YOUNG_SECONDS, ChildProcess, ChildProcesses


@pytest.fixture
def sleeping() -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_keeps_dying_young_is_replaced_later_and_later(
    sleeping: subprocess.Popen[bytes],
) -> None:
    child, now, delays = ChildProcess("worker-1", is_worker=True), 100.0, []
    for _ in range(4):
        child.start(sleeping.pid, now)
        child.end()
        delays.append(child.schedule_restart(now + 1))
        now = child.restart_at
    assert delays[0] == 0.0, "a single death means nothing"
    assert 0 < delays[1] < delays[2] < delays[3]
    child.start(sleeping.pid, now)
    child.end()
    assert child.schedule_restart(now + YOUNG_SECONDS) == 0.0, "that one lasted"


def test_a_killed_process_ends_with_the_reason_that_was_given(sleeping: subprocess.Popen[bytes]) -> None:
    child = ChildProcess("worker-1", is_worker=True)
    child.request("the-id")
    assert child.requested
    assert not child.alive
    assert child.start(sleeping.pid, 0.0)
    assert child.alive
    assert not child.lasts(YOUNG_SECONDS - 1)
    assert child.lasts(YOUNG_SECONDS)
    child.kill("was killed because it did not stop in time")
    child.wait()
    assert sleeping.poll() is not None
    assert child.end() == "was killed because it did not stop in time"
    assert (child.alive, child.requested, child.end()) == (False, False, None)


def test_a_process_that_is_already_gone_died_at_its_start() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    child = ChildProcess("worker-1", is_worker=True)
    assert not child.start(gone.pid, 0.0)
    assert not child.alive
    assert child.end() == "died at its start"


def test_places_are_added_and_given_up(sleeping: subprocess.Popen[bytes]) -> None:
    children = ChildProcesses()
    children.set_number_of_workers(2)
    assert [child.name for child in children] == ["maintenance", "worker-1", "worker-2"]
    children.set_number_of_workers(1)
    assert [child.name for child in children.workers] == ["worker-1"]
    [worker] = children.workers
    assert children.workers_are_gone
    worker.request("the-id")
    assert not children.workers_are_gone
    worker.start(sleeping.pid, 0.0)
    assert not children.workers_are_gone
    children.change_number_of_workers(1)
    assert len(children.workers) == 2
    children.set_number_of_workers(3)
    assert len(children.workers) == 4, "the one that was added by hand stays"
    children.change_number_of_workers(-1)
    assert [child.name for child in children.workers] == ["worker-1", "worker-2", "worker-3"]
    successor = children.replace(worker, None)
    assert (successor.name, successor.alive) == ("worker-1", False)
    assert children.workers[0] is successor
    assert children.predecessors(successor) == [worker]
    assert worker in children.all_workers, "it is signaled, and waited for, like the others"
    assert not children.workers_are_gone
