"""A handler that blocks the event loop is named in the log, once."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from agentexec.worker import loop_watch
from agentexec.worker.loop_watch import LoopWatch
from agentexec.worker.scoreboard import Cell


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_watch, "PAUSE", 0.02)
    monkeypatch.setattr(loop_watch, "BLOCKED_SECONDS", 0.1)


async def test_a_handler_that_blocks_the_loop_is_named_with_its_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    async def handler() -> None:
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251 - it blocks the event loop

    watch = LoopWatch(lambda: True, Cell.alone())
    watch.start()
    try:
        await asyncio.create_task(handler(), name="agentexec:research")
    finally:
        watch.stop()
    [record] = caplog.records
    message = record.getMessage()
    assert message.startswith(
        f"A task of research has blocked the event loop for more than 0.1 s, at {__file__}"
    )
    assert message.endswith("await asyncio.to_thread(...).")


async def test_the_same_line_is_not_named_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch(lambda: True, Cell.alone())
    watch.start()
    try:
        for _ in range(3):
            time.sleep(0.3)  # noqa: ASYNC251 - it blocks the event loop
            await asyncio.sleep(0.05)
    finally:
        watch.stop()
    assert len(caplog.records) <= 1


async def test_an_idle_loop_is_left_asleep(caplog: pytest.LogCaptureFixture) -> None:
    looks = []
    watch = LoopWatch(lambda: bool(looks.append(None)), Cell.alone())
    watch.start()
    try:
        time.sleep(0.3)  # noqa: ASYNC251 - it blocks the event loop
    finally:
        watch.stop()
    assert looks
    assert not caplog.records
