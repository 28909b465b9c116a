"""A signal is noted and wakes the loop; nothing happens in its handler."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentexec.worker.signal_queue import SignalQueue
from tests.waiting import patient, wait_until


def readable(queue: SignalQueue) -> bool:
    return bool(select.select([queue], [], [], 0)[0])


def test_signals_wake_the_loop_and_are_taken_in_their_order() -> None:
    queue = SignalQueue()
    assert not readable(queue)
    queue.put(signal.SIGTERM)
    queue.put(signal.SIGINT)
    assert readable(queue)
    queue.clear_wake_up()
    assert not readable(queue)
    assert list(queue.take()) == [signal.SIGTERM, signal.SIGINT]
    assert list(queue.take()) == []


def test_the_process_has_its_handlers_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    queue = SignalQueue()
    queue.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert list(queue.take()) == [signal.SIGTERM]
    finally:
        queue.restore()
    assert signal.getsignal(signal.SIGTERM) == before


WAITS = """
import fcntl, os, select, signal, sys, termios
from pathlib import Path
from agentexec.worker.signal_queue import SignalQueue, Terminal
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
terminal, queue = Terminal(), SignalQueue()
queue.install()
answers = Path(sys.argv[1])
for text in ("sent", "hung up", "sent again"):
    answers.with_name("ready").touch()
    select.select([queue], [], [], 30)
    queue.clear_wake_up()
    assert list(queue.take()) == [signal.SIGHUP]
    with answers.open("a") as file:
        file.write(f"{text}: {terminal.has_closed()}\\n")
"""


@pytest.mark.parametrize(("nohup", "ends"), [([], True), (["nohup"], False)])
def test_the_end_of_the_terminal_is_told_from_a_signal_that_somebody_sent(
    tmp_path: Path, nohup: list[str], ends: bool
) -> None:
    master, terminal = pty.openpty()
    answers = tmp_path / "answers"
    process = subprocess.Popen([sys.executable, "-c", WAITS, str(answers), *nohup], stdin=terminal)
    os.close(terminal)

    def lines() -> list[str]:
        return answers.read_text().splitlines() if answers.exists() else []

    try:
        wait_until((tmp_path / "ready").exists, timeout=30)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(lines()) == 1)
        os.close(master)
        wait_until(lambda: len(lines()) == 2)
        process.send_signal(signal.SIGHUP)
        assert process.wait(patient(30)) == 0
    finally:
        process.kill()
        process.wait()
    assert lines() == ["sent: False", f"hung up: {ends}", "sent again: False"]
