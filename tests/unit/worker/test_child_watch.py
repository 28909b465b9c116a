"""Worker processes that hang are killed; those that are too large or have run their tasks are replaced first."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator

import pytest

from agentexec.config import Settings
from agentexec.worker.child_processes import ChildProcess, ChildProcesses, Restart
from agentexec.worker.child_watch import OWN_GAP, ChildWatch
from agentexec.worker.scoreboard import Scoreboard, State


class Watched:
    """One worker process that does nothing, and the watch over it."""

    def __init__(self, process: subprocess.Popen[bytes], **settings: float) -> None:
        self.board = Scoreboard.new()
        self.children = ChildProcesses()
        self.children.set_number_of_workers(1)
        self.restarts: Counter[Restart] = Counter()
        self.watch = ChildWatch(self.children, Settings.model_validate(settings), self.restarts)
        self.process = process
        self.child = self.children.workers[0]
        self.start(self.child, process)

    def start(self, child: ChildProcess, process: subprocess.Popen[bytes]) -> None:
        child.cell = self.board.take()
        child.cell.note_state(State.SERVING)
        child.start(process.pid, time.monotonic())

    def turn(self, later: float = 0.0, *, stopping: bool = False) -> None:
        self.watch.turn(time.monotonic() + later, stopping=stopping)


@pytest.fixture
def sleeping() -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_whose_loop_does_not_answer_is_killed(sleeping: subprocess.Popen[bytes]) -> None:
    watched = Watched(sleeping, hang_timeout=100)
    watched.watch._trusted_from -= 1000
    cell = watched.child.cell
    assert cell is not None
    watched.turn()
    assert sleeping.poll() is None, "nobody watches its loop yet"
    cell.note_answer()
    for later in range(0, 100, 4):
        watched.turn(later)
    assert watched.child.killed_for is None
    watched.turn(100.5)
    assert sleeping.wait(10) == -signal.SIGKILL
    assert watched.child.killed_for is Restart.HANG
    assert watched.child.exit_reason == "was killed because its event loop did not answer for 100 s"


@pytest.mark.parametrize("timeout", [0, 1000])
def test_a_supervisor_that_stood_still_itself_blames_nobody(
    sleeping: subprocess.Popen[bytes], timeout: float
) -> None:
    watched = Watched(sleeping, hang_timeout=timeout)
    assert watched.child.cell is not None
    watched.child.cell.note_answer()
    watched.turn(OWN_GAP + 2000)
    watched.turn(OWN_GAP + 2001)
    assert watched.child.killed_for is None


def test_a_large_process_goes_on_until_its_successor_serves(sleeping: subprocess.Popen[bytes]) -> None:
    watched = Watched(sleeping, max_memory_per_child=1)
    cell = watched.child.cell
    assert cell is not None
    cell.note_started(1)
    watched.turn()
    [successor] = watched.children.workers
    assert successor is not watched.child
    assert watched.children.retired == [watched.child]
    assert watched.restarts == {Restart.MEMORY: 1}
    watched.turn(2)
    assert not cell.retirement_ordered
    watched.start(successor, sleeping)
    watched.turn(3)
    assert cell.retirement_ordered
    watched.turn(100_000)
    assert sleeping.poll() is None, "its tasks take as long as they take"


def test_a_limit_below_what_an_idle_process_holds_is_named_and_replaces_nothing(
    sleeping: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(sleeping, max_memory_per_child=1)
    with caplog.at_level(logging.WARNING):
        watched.turn()
        watched.turn(2)
    assert watched.children.workers == [watched.child]
    [record] = caplog.records
    assert record.getMessage().endswith("before its first task: raise the limit.")


def test_a_process_that_is_told_to_end_by_a_signal_is_killed_if_it_does_not(
    sleeping: subprocess.Popen[bytes],
) -> None:
    watched = Watched(sleeping, graceful_shutdown_timeout=5, max_tasks_per_child=10)
    watched.watch.replace(watched.child, Restart.RELOAD, 0)
    # A third one takes the place before the second has served: the first is told by what the third does.
    [second] = watched.children.workers
    watched.watch.replace(second, Restart.RELOAD, 0)
    watched.turn()
    assert watched.child.told_at is None
    watched.start(watched.children.workers[0], sleeping)
    watched.turn(1)
    watched.turn(15)
    assert sleeping.poll() is None
    watched.turn(17)
    assert sleeping.wait(10) == -signal.SIGKILL


def test_a_process_that_has_run_its_tasks_is_replaced_unless_all_stop(
    sleeping: subprocess.Popen[bytes],
) -> None:
    watched = Watched(sleeping, max_tasks_per_child=10)
    assert watched.child.cell is not None
    watched.child.cell.note_state(State.DUE)
    watched.turn(stopping=True)
    assert not watched.restarts
    watched.turn()
    assert watched.restarts == {Restart.TASKS: 1}
