"""Waiting for results: `get_result` and `gather`, pushed rather than polled."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, overload
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from agentexec.activity.mailbox import Mailbox, TaskOutcome
from agentexec.activity.queries.handle import find_task
from agentexec.config import CONF
from agentexec.errors import (
    AgentexecError,
    ResultExpiredError,
    TaskCanceledError,
    TaskFailedError,
    UsageError,
)
from agentexec.journal.slot_release import slot_released, slot_released_sync
from agentexec.registry import first_error_message
from agentexec.runtime import RUNTIME
from agentexec.task import Status, Task, agent_id_of

T = TypeVar("T")

DEFAULT_TIMEOUT = 300.0


@overload
async def get_result(
    task: Task | UUID | str,
    timeout: float | None = ...,
    *,
    type: None = ...,
    metadata_filter: Mapping[str, Any] | None = ...,
) -> Any: ...
@overload
async def get_result(
    task: Task | UUID | str,
    timeout: float | None = ...,
    *,
    type: type[T],
    metadata_filter: Mapping[str, Any] | None = ...,
) -> T: ...
async def get_result(
    task: Task | UUID | str,
    timeout: float | None = DEFAULT_TIMEOUT,
    *,
    type: Any | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
) -> Any:
    """Wait for a task and return its result.

    `timeout`: seconds, None for no limit. Inside a task the wait takes no slot of its worker. The result is decoded as `type` if given, else as the return type of
    the task's handler if this process knows the handler, else it is plain JSON data.
    `metadata_filter`: as for `ax.activity.detail`.

    Raises TaskFailedError as soon as the task failed for good, TaskCanceledError, TimeoutError when late,
    ResultExpiredError, ActivityNotFoundError for an unknown agent_id, UnavailableError.
    """
    expected = (await expect([task], metadata_filter))[0]
    return decode(await _wait(expected, timeout), type)


def get_result_sync(
    task: Task | UUID | str,
    timeout: float | None = DEFAULT_TIMEOUT,
    *,
    type: Any | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
) -> Any:
    """`get_result` for code without an event loop: the same arguments, result and errors."""
    handle = _look_up([task], metadata_filter)[0]
    future = _mailbox().watch(handle.queue_name, [handle.agent_id])[0]
    if future.done():
        return decode(future.result(), type)
    with slot_released_sync():
        try:
            end = future.result(timeout)
        except TimeoutError:
            _mailbox().unwatch(handle.agent_id, future)
            raise TimeoutError(_late(handle.agent_id, timeout)) from None
    return decode(end, type)


async def gather(
    *tasks: Task | UUID | str,
    timeout: float | None = DEFAULT_TIMEOUT,
    return_exceptions: bool = False,
    metadata_filter: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Wait for several tasks and return their results in the order of the arguments.

    Raises as `get_result` does, at the first task that failed (the others go on and keep their results);
    with `return_exceptions` the errors stand in the list instead. `timeout`: seconds for all together, None for no
    limit. Inside a task the wait takes no slot of its worker. `metadata_filter`: as for `ax.activity.detail`.
    """
    results: list[Any] = [None] * len(tasks)
    async with outcome_stream(timeout) as stream:
        await stream.add(tasks, metadata_filter)
        async for place, end in stream:
            results[place] = result_or_error(end, return_exceptions)
    return results


def result_or_error(end: TaskOutcome, return_exceptions: bool) -> Any:
    """The result of an ended task; its error is raised, or returned."""
    try:
        return decode(end, None)
    except AgentexecError as error:
        if not return_exceptions:
            raise
        return error


@dataclass(frozen=True, slots=True)
class Completed:
    """A task that has ended, as `as_completed` gives it."""

    task: Task
    _end: TaskOutcome

    def result(self, type: Any | None = None) -> Any:
        """Its result; raises as `get_result` does."""
        return decode(self._end, type)


async def as_completed(
    tasks: Sequence[Task | UUID | str],
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    metadata_filter: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Completed]:
    """Tasks in the order in which they end: `async for done in ax.as_completed(tasks): use(done.result())`.

    `timeout`: seconds for all together, None for no limit. `metadata_filter`: as for `ax.activity.detail`.
    Raises TimeoutError, ActivityNotFoundError,
    UnavailableError; errors of tasks are raised by `result()`.
    """
    handles = await RUNTIME.run_in_thread(_look_up, tasks, metadata_filter)
    async with outcome_stream(timeout) as stream:
        await stream.add(handles)
        async for place, end in stream:
            yield Completed(handles[place], end)


class OutcomeStream:
    """Ends of tasks as they come, each with its place among those that are expected."""

    def __init__(self, deadline: float | None, timeout: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends: asyncio.Queue[tuple[int, TaskOutcome]] = asyncio.Queue()
        self._open: dict[int, Expected] = {}
        self._number = 0
        self._deadline = deadline
        self._timeout = timeout

    @property
    def pending(self) -> int:
        """How many are expected that have not been given."""
        return len(self._open)

    async def add(
        self, tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None = None
    ) -> None:
        """Expect more tasks, whose places follow those of before."""
        for expected in await expect(tasks, metadata_filter):
            place = self._number
            self._number += 1
            self._open[place] = expected
            expected.future.add_done_callback(functools.partial(self._note, place))

    def _note(self, place: int, future: Future[TaskOutcome]) -> None:
        if not future.cancelled():
            self._loop.call_soon_threadsafe(self._ends.put_nowait, (place, future.result()))

    def __aiter__(self) -> OutcomeStream:
        return self

    async def __anext__(self) -> tuple[int, TaskOutcome]:
        if not self._open:
            raise StopAsyncIteration
        if self._ends.empty():
            await asyncio.sleep(0)  # what was there at the first look is told at the loop's next turn
        if self._ends.empty():
            async with slot_released():
                place, end = await self._next()
        else:
            place, end = self._ends.get_nowait()
        del self._open[place]
        return place, end

    async def _next(self) -> tuple[int, TaskOutcome]:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._ends.get()
        except TimeoutError:
            first = next(iter(self._open.values()))
            raise TimeoutError(_late(first.agent_id, self._timeout, len(self._open))) from None

    def forget(self) -> None:
        """Wait for nothing any more."""
        for expected in self._open.values():
            if not expected.future.done():
                _mailbox().unwatch(expected.agent_id, expected.future)


@asynccontextmanager
async def outcome_stream(timeout: float | None) -> AsyncGenerator[OutcomeStream]:
    """A place to wait for several tasks; `timeout`: seconds from now, for all of the block."""
    now = asyncio.get_running_loop().time()
    stream = OutcomeStream(None if timeout is None else now + timeout, timeout)
    try:
        yield stream
    finally:
        stream.forget()


class Expected:
    """A future of a task's end, and whose it is."""

    __slots__ = ("agent_id", "future")

    def __init__(self, agent_id: UUID, future: Future[TaskOutcome]) -> None:
        self.agent_id = agent_id
        self.future = future


async def expect(
    tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None = None
) -> list[Expected]:
    """Futures of the ends of tasks."""
    return await RUNTIME.run_in_thread(_expect_blocking, tasks, metadata_filter)


def _expect_blocking(
    tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None
) -> list[Expected]:
    handles = _look_up(tasks, metadata_filter)
    queues: dict[str, list[UUID]] = {}
    for handle in handles:
        queues.setdefault(handle.queue_name, []).append(handle.agent_id)
    futures: dict[UUID, list[Future[TaskOutcome]]] = {}
    for queue, agent_ids in queues.items():
        for agent_id, future in zip(agent_ids, _mailbox().watch(queue, agent_ids), strict=True):
            futures.setdefault(agent_id, []).append(future)
    return [Expected(handle.agent_id, futures[handle.agent_id].pop()) for handle in handles]


def _look_up(
    tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None = None
) -> list[Task]:
    """Handles of tasks of which perhaps only the id is known. With a filter no handle is believed."""
    return [
        task
        if isinstance(task, Task) and metadata_filter is None
        else find_task(RUNTIME.engine, agent_id_of(task), metadata_filter)
        for task in tasks
    ]


async def _wait(expected: Expected, timeout: float | None) -> TaskOutcome:
    if expected.future.done():
        return expected.future.result()
    async with slot_released():
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(expected.future)
        except TimeoutError:
            raise TimeoutError(_late(expected.agent_id, timeout)) from None
        finally:
            if not expected.future.done() or expected.future.cancelled():
                _mailbox().unwatch(expected.agent_id, expected.future)


def _late(agent_id: UUID, timeout: float | None, number: int = 1) -> str:
    which = f"Task {agent_id} has" if number == 1 else f"{number} tasks have"
    return f"{which} not ended within {timeout} seconds; still waiting is possible, nothing was canceled."


def decode(end: TaskOutcome, wanted: Any | None) -> Any:
    """The result of an ended task, or its error."""
    if end.status is not Status.COMPLETE:
        kind = TaskCanceledError if end.status is Status.CANCELED else TaskFailedError
        raise kind(task_name=end.task_name, agent_id=end.agent_id, error=end.error, attempts=end.attempts)
    if end.result is None:
        if end.age > CONF.result_ttl:
            raise ResultExpiredError(end.agent_id)
        return None
    if wanted is not None:
        adapter: TypeAdapter[Any] | None = TypeAdapter(wanted)
    else:
        definition = RUNTIME.definition(end.task_name)
        adapter = definition.result_type if definition is not None else None
    if adapter is None:
        try:
            return json.loads(end.result)
        except (ValueError, RecursionError):
            raise AgentexecError(
                f"The result of task {end.task_name} ({end.agent_id}) cannot be read: the database holds no JSON."
            ) from None
    try:
        return adapter.validate_json(end.result)
    except ValidationError as error:
        raise UsageError(
            f"The result of task {end.task_name} ({end.agent_id}) does not fit the wanted type: {first_error_message(error)}."
        ) from None


def _mailbox() -> Mailbox:
    return RUNTIME.get_shared(Mailbox, lambda: Mailbox(RUNTIME))
