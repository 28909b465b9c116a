"""Every handler that is started ends in exactly one ending, or in none if the task belongs to somebody else by then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from agentexec.config import Settings
from agentexec.registry import Registry
from agentexec.task import Status
from agentexec.worker.running import RunningTasks
from tests.unit.worker.parts import FakeWriter, Held, admitted
from tests.waiting import wait_until_async


@pytest.fixture
def threads() -> Generator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Process:
    """Running tasks with what is around them."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.held = Held()
        self.writer = FakeWriter()
        self.started: set[UUID] = set()
        self.release = threading.Event()
        registry = Registry()
        registry.add("work", self._work)
        registry.add("hang", self._hang)
        registry.add("block", self._block)
        registry.add("cancel_itself", self._cancel_itself)
        registry.add("fail", self._fail)
        self.running = RunningTasks(registry, Settings(), self.held.tasks, self.writer, threads)

    async def _work(self, agent_id: UUID, context: dict[str, Any]) -> str:
        self.started.add(agent_id)
        return "done"

    async def _hang(self, agent_id: UUID, context: dict[str, Any]) -> None:
        self.started.add(agent_id)
        await asyncio.sleep(60)

    def _block(self, agent_id: UUID, context: dict[str, Any]) -> None:
        self.started.add(agent_id)
        self.release.wait(30)

    async def _cancel_itself(self, agent_id: UUID, context: dict[str, Any]) -> None:
        raise asyncio.CancelledError

    async def _fail(self, agent_id: UUID, context: dict[str, Any]) -> None:
        raise ValueError("no luck")

    async def begin(self, *names: str) -> list[UUID]:
        tasks = [admitted(name) for name in names]
        self.held.start(tasks)
        self.running.begin(tasks)
        await asyncio.sleep(0)
        return [task.lease.agent_id for task in tasks]

    async def until_started(self, agent_id: UUID) -> None:
        await wait_until_async(lambda: agent_id in self.started)

    @property
    def statuses(self) -> list[Status]:
        return [ending.status for ending in self.writer.endings]


@asynccontextmanager
async def process(threads: ThreadPoolExecutor) -> AsyncGenerator[Process]:
    opened = Process(threads)
    opened.running.open()
    try:
        yield opened
    finally:
        opened.release.set()
        opened.running.cancel()
        await opened.running.wait(10, return_when=asyncio.ALL_COMPLETED)


def test_a_handler_that_returns_ends_its_task_and_frees_its_slot(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            [agent_id] = await p.begin("work")
            await p.running.wait(10)
            assert (p.statuses, p.running.count) == ([Status.COMPLETE], 0)
            assert p.held.free_slots == 2
            assert p.held.tasks.epoch(agent_id) == 1, "the lease lasts until the ending is written"

    asyncio.run(check())


def test_an_aborted_task_has_no_ending_here_and_holds_nothing(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            aborted, _ = await p.begin("hang", "hang")
            await p.until_started(aborted)
            await asyncio.to_thread(p.running.abort, aborted)
            await wait_until_async(lambda: p.running.count == 1)
            assert p.statuses == []
            assert p.held.tasks.epoch(aborted) is None
            assert p.held.free_slots == 1

    asyncio.run(check())


def test_an_abort_of_a_task_that_does_not_run_changes_nothing(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            p.running.abort(admitted().lease.agent_id)
            await p.begin("work")
            await p.running.wait(10)
            assert p.statuses == [Status.COMPLETE]

    asyncio.run(check())


def test_a_canceled_handler_is_handed_back_only_while_the_process_drains(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            await p.begin("cancel_itself")
            await p.running.wait(10)
            assert p.statuses == [Status.ERROR]
            assert p.writer.endings[0].error == "The handler canceled itself."
            p.running.draining = True
            await p.begin("cancel_itself")
            await p.running.wait(10)
            assert p.statuses == [Status.ERROR, Status.QUEUED]
            assert not p.writer.endings[1].counts_as_attempt

    asyncio.run(check())


def test_some_tasks_can_be_canceled(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            p.running.draining = True
            first, second = await p.begin("hang", "hang")
            await p.until_started(second)
            p.running.cancel({first})
            await p.running.wait(10)
            assert [ending.lease.agent_id for ending in p.writer.endings] == [first]
            assert p.running.count == 1

    asyncio.run(check())


def test_a_handler_that_cannot_be_stopped_is_handed_back_all_the_same(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            p.running.draining = True
            [agent_id] = await p.begin("block")
            await p.until_started(agent_id)
            p.running.hand_back()
            [ending] = p.writer.endings
            assert (ending.lease, ending.status) == ((agent_id, 1), Status.QUEUED)
            assert not ending.counts_as_attempt

    asyncio.run(check())


def test_an_error_of_our_own_ends_the_task_too(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("no threads left")

    monkeypatch.setattr("agentexec.worker.running.execute_attempt", fail)

    async def check() -> None:
        async with process(threads) as p:
            await p.begin("work")
            await p.running.wait(10)
            [ending] = p.writer.endings
            assert ending.status is Status.ERROR
            assert "OSError" in str(ending.error)

    asyncio.run(check())


async def test_a_final_failure_is_one_line_in_the_log(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    async with process(threads) as opened:
        [agent_id] = await opened.begin("fail")
        await wait_until_async(lambda: opened.statuses)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"Task fail {agent_id} failed: ValueError: no luck"
    ]
