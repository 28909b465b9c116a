"""A signal is noted and wakes the loop; nothing happens in its handler."""

from __future__ import annotations

import os
import select
import signal

from agentexec.worker.signal_queue import SignalQueue


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
