"""A drain gives running tasks their grace period, then hands them back; a second request ends the grace period."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from agentexec.config import Settings
from agentexec.registry import Registry
from agentexec.task import Status
from agentexec.worker.draining import Drain
from agentexec.worker.running import RunningTasks
from tests.unit.worker.parts import FakeWriter, Held, admitted
from tests.waiting import patient


class Draining:
    """A process with one task, which sleeps for `seconds` or waits for other tasks."""

    def __init__(self, seconds: float, grace: float, *, waits_for_others: bool = False) -> None:
        self.held = Held()
        self.writer = FakeWriter()
        self.draining = threading.Event()
        self._started = asyncio.Event()
        self._seconds = seconds
        registry = Registry()
        registry.add("work", self._wait_for_others if waits_for_others else self._work)
        threads = ThreadPoolExecutor(1)
        self.running = RunningTasks(registry, Settings(), self.held.tasks, self.writer, threads)
        self.drain = Drain(self.running, self.held.slots, self.draining, grace)

    async def begin(self) -> None:
        self.running.open()
        task = admitted("work")
        self.held.start([task])
        self.running.begin([task])
        await self._started.wait()

    async def _work(self, agent_id: UUID, context: dict[str, Any]) -> None:
        self._started.set()
        await asyncio.sleep(self._seconds)

    async def _wait_for_others(self, agent_id: UUID, context: dict[str, Any]) -> None:
        async with self.held.slots.released(agent_id, requeue_on_stop=True):
            await self._work(agent_id, context)

    @property
    def statuses(self) -> list[Status]:
        return [ending.status for ending in self.writer.endings]


def test_a_task_that_ends_within_the_grace_period_completes() -> None:
    async def check() -> None:
        process = Draining(seconds=0.01, grace=30.0)
        await process.begin()
        process.drain.request()
        await process.drain.wait_for_request()
        assert process.draining.is_set()
        await process.drain.finish_running()
        assert process.statuses == [Status.COMPLETE]

    asyncio.run(check())


def test_a_task_that_outlasts_the_grace_period_is_handed_back() -> None:
    async def check() -> None:
        process = Draining(seconds=60.0, grace=0.05)
        await process.begin()
        process.drain.request()
        await process.drain.finish_running()
        assert process.statuses == [Status.QUEUED]

    asyncio.run(check())


def test_a_second_request_ends_the_grace_period() -> None:
    async def check() -> None:
        process = Draining(seconds=60.0, grace=60.0)
        await process.begin()
        process.drain.request()
        asyncio.get_running_loop().call_later(0.05, process.drain.request_now)
        began = time.monotonic()
        await process.drain.finish_running()
        assert time.monotonic() - began < patient(30)
        assert process.statuses == [Status.QUEUED]

    asyncio.run(check())


def test_a_task_that_waits_for_others_is_handed_back_without_the_grace_period() -> None:
    async def check() -> None:
        process = Draining(seconds=60.0, grace=60.0, waits_for_others=True)
        await process.begin()
        await asyncio.sleep(0)
        process.drain.request()
        began = time.monotonic()
        await process.drain.finish_running()
        assert time.monotonic() - began < patient(30)
        assert process.statuses == [Status.QUEUED]

    asyncio.run(check())


def test_an_idle_process_has_nothing_to_finish() -> None:
    async def check() -> None:
        process = Draining(seconds=0, grace=60.0)
        process.drain.request_now()
        await process.drain.wait_for_request()
        await process.drain.finish_running()
        assert process.statuses == []

    asyncio.run(check())
