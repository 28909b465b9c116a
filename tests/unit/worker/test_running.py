"""Every handler that is started ends in exactly one ending, or in none if the task belongs to somebody else by then."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from uuid import UUID

import pytest
import uvloop
from pydantic import BaseModel, model_serializer, model_validator

from agentexec.config import Settings
from agentexec.registry import Registry
from agentexec.task import Status
from agentexec.worker.event_loop import MainTask, run_to_end
from agentexec.worker.running import MOVED_MESSAGE, RunningTasks
from agentexec.worker.slots import Slots
from tests.unit.worker.parts import FakeWriter, Held, admitted
from tests.waiting import wait_until_async


@pytest.fixture
def threads() -> Generator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class OddModel(BaseModel):
    """Model whose validator and serializer raise."""

    error: ClassVar[BaseException] = ValueError()

    @model_validator(mode="before")
    @classmethod
    def _validate(cls, value: Any) -> Any:
        raise cls.error

    @model_serializer
    def _serialize(self) -> Any:
        raise self.error


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
        registry.add("cancel_in_group", self._cancel_in_group)
        registry.add("cancel_all", self._cancel_all)
        registry.add("outlast", self._outlast, timeout=0.05)
        registry.add("fail_odd", self._fail_odd, retries=1)
        registry.add("fail_in_thread", self._fail_in_thread, retries=1)
        registry.add("validate", self._validate, retries=1)
        registry.add("serialize", self._serialize, retries=1)
        self.fail: Callable[[], Any] = dict
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

    async def _cancel_in_group(self, agent_id: UUID, context: dict[str, Any]) -> None:
        raise BaseExceptionGroup("as anyio does", [asyncio.CancelledError()])

    async def _cancel_all(self, agent_id: UUID, context: dict[str, Any]) -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(60)

    async def _outlast(self, agent_id: UUID, context: dict[str, Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def _validate(self, agent_id: UUID, context: OddModel) -> None: ...

    async def _serialize(self, agent_id: UUID, context: dict[str, Any]) -> OddModel:
        return OddModel.model_construct()

    async def _fail_odd(self, agent_id: UUID, context: dict[str, Any]) -> None:
        await self.fail()

    def _fail_in_thread(self, agent_id: UUID, context: dict[str, Any]) -> None:
        self.fail()

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


def test_tasks_that_are_put_back_end_without_an_attempt_also_in_a_thread(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            moving = await p.begin("hang", "block")
            [beside] = await p.begin("hang")
            for agent_id in (*moving, beside):
                await p.until_started(agent_id)
            p.running.put_back([*moving, admitted().lease.agent_id])
            await wait_until_async(lambda: p.running.count == 1)
            assert p.statuses == [Status.QUEUED] * 2
            assert {ending.message for ending in p.writer.endings} == {MOVED_MESSAGE}
            assert not any(ending.counts_as_attempt for ending in p.writer.endings)

    asyncio.run(check())


def test_a_wait_for_tasks_counts_from_the_first_of_its_branches(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        slots, task = Slots(2), admitted().lease.agent_id
        async with slots.released(task, requeue_on_stop=False):
            assert slots.waiting_for_tasks(0.0) == set(), "it waits for something else"
            async with slots.released(task, requeue_on_stop=False, for_tasks=True):
                assert slots.waiting_for_tasks(60.0) == set()
                await asyncio.sleep(0)
                assert slots.waiting_for_tasks(0.0) == {task}
        assert slots.waiting_for_tasks(0.0) == set()

    asyncio.run(check())


def test_a_canceled_handler_is_handed_back_only_while_the_process_drains(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            await p.begin("cancel_itself")
            await p.running.wait(10)
            assert p.statuses == [Status.ERROR]
            assert "CancelledError: nobody canceled the task" in str(p.writer.endings[0].error)
            p.running.draining = True
            await p.begin("cancel_itself", "cancel_in_group")
            await p.running.wait(10, return_when=asyncio.ALL_COMPLETED)
            assert p.statuses == [Status.ERROR, Status.QUEUED, Status.QUEUED]
            assert not any(ending.counts_as_attempt for ending in p.writer.endings[1:])

    asyncio.run(check())


class PanicError(BaseException):
    """An error as extensions in Rust raise it."""


class UnreadableError(Exception):
    """An error whose message cannot be read."""

    def __str__(self) -> str:
        raise PanicError("no text")


def fail(error: BaseException) -> None:
    raise error


async def fail_later(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def fail_in_branch(error: BaseException) -> None:
    await asyncio.gather(fail_later(error), asyncio.sleep(0))


async def fail_in_thread(error: BaseException) -> None:
    await asyncio.to_thread(fail, error)


async def fail_in_own_thread(error: BaseException) -> None:
    with ThreadPoolExecutor(1) as own:
        await asyncio.get_running_loop().run_in_executor(own, fail, error)


ODD_ERRORS: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: PanicError("index out of bounds"), "PanicError: index out of bounds"),
    (lambda: GeneratorExit(), "raised GeneratorExit"),
    (lambda: StopIteration(1), "raised StopIteration"),
    (lambda: StopAsyncIteration("over"), "StopAsyncIteration: over"),
    (lambda: SystemExit(2), "SystemExit: 2"),
    (lambda: KeyboardInterrupt(), "KeyboardInterrupt"),
    (lambda: asyncio.CancelledError(), "CancelledError: nobody canceled the task"),
    (lambda: UnreadableError(), "UnreadableError: its message cannot be read"),
    (lambda: BaseExceptionGroup("both", [SystemExit(1), ValueError()]), "BaseExceptionGroup: both"),
]


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    "code",
    [fail, fail_later, fail_in_branch, fail_in_thread, fail_in_own_thread],
    ids=lambda code: code.__name__,
)
def test_every_error_ends_its_attempt_by_its_name_and_frees_the_slot(
    code: Callable[[BaseException], Any],
    new_event_loop: Callable[[], asyncio.AbstractEventLoop],
    threads: ThreadPoolExecutor,
) -> None:
    """Each error in an attempt with a retry left, beside a task that must not notice."""

    async def check() -> None:
        async with process(threads) as p:
            [beside] = await p.begin("hang")
            for new_error, text in ODD_ERRORS:
                p.fail = functools.partial(code, new_error())
                await p.begin("fail_odd" if inspect.iscoroutinefunction(code) else "fail_in_thread")
                await wait_until_async(lambda: p.running.count == 1)
                ending = p.writer.endings.pop()
                assert (ending.status, ending.counts_as_attempt) == (Status.QUEUED, True), text
                assert text in str(ending.error).splitlines()[0]
                assert text in ending.message
                assert p.held.free_slots == 1
            assert beside in p.started
            assert p.writer.endings == []

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        loop = runner.get_loop()
        run_to_end(loop, MainTask(check(), loop=loop))


@pytest.mark.parametrize("code", ["validate", "serialize"])
def test_an_odd_error_of_a_validator_or_serializer_ends_the_attempt(
    threads: ThreadPoolExecutor, code: str
) -> None:
    async def check() -> None:
        async with process(threads) as p:
            for new_error, text in ODD_ERRORS:
                OddModel.error = new_error()
                await p.begin(code)
                await p.running.wait(10)
                ending = p.writer.endings.pop()
                assert ending.status in (Status.QUEUED, Status.ERROR)
                assert text.split(":")[0].removeprefix("raised ") in str(ending.error)
                assert (p.running.count, p.held.free_slots) == (0, 2)

    asyncio.run(check())


def test_a_handler_that_cancels_itself_does_not_escape_its_time_limit(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            await p.begin("outlast")
            await p.running.wait(10)
            [ending] = p.writer.endings
            assert "TimeoutError: the attempt took longer than 0.05 seconds" in str(ending.error)

    asyncio.run(check())


def test_a_handler_that_cancels_all_tasks_fails_alone(threads: ThreadPoolExecutor) -> None:
    async def check() -> None:
        async with process(threads) as p:
            [beside] = await p.begin("hang")
            await p.until_started(beside)
            [culprit] = await p.begin("cancel_all")
            await p.running.wait(10)
            assert [ending.lease.agent_id for ending in p.writer.endings] == [culprit]

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        run_to_end(loop, MainTask(check(), loop=loop))


def test_begun_tasks_are_handed_back_without_an_event_loop(threads: ThreadPoolExecutor) -> None:
    """Also those that the loop has not started when it ends; those that have ended are not."""

    async def begin() -> Process:
        p = Process(threads)
        p.running.open()
        await p.begin("work")
        await p.running.wait(10)
        await p.begin("hang")
        tasks = [admitted("hang")]
        p.held.start(tasks)
        p.running.begin(tasks)
        p.running.draining = True
        return p

    loop = asyncio.new_event_loop()
    p = loop.run_until_complete(begin())
    p.running.hand_back()
    assert p.statuses == [Status.COMPLETE, Status.QUEUED, Status.QUEUED]
    p.running.cancel()
    loop.run_until_complete(p.running.wait(10, return_when=asyncio.ALL_COMPLETED))
    loop.close()


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
    async def fail(*_: object, **__: object) -> None:
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


@pytest.mark.parametrize("how", ["aborted", "canceled by a neighbor", "drained"])
async def test_an_attempt_that_is_stopped_before_its_first_step_holds_nothing(
    threads: ThreadPoolExecutor, how: str
) -> None:
    """A handler that blocks the loop makes both arrive at once: then Python never runs the attempt's first line."""
    async with process(threads) as p:
        [task] = [admitted("hang")]
        agent_id = task.lease.agent_id
        p.held.start([task])
        p.running.begin([task])
        if how == "aborted":
            p.running.abort(agent_id)
        elif how == "canceled by a neighbor":
            asyncio.get_running_loop().call_soon(lambda: p.running._running[agent_id].cancel("cancel scope"))
        else:
            asyncio.get_running_loop().call_soon(p.running.cancel)
        await wait_until_async(lambda: p.held.free_slots == 2 and p.running.count == 0)
        assert p.started == set()
        assert p.statuses == ([] if how == "aborted" else [Status.QUEUED])
