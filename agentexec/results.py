"""Waiting for results: `get_result` and `gather`, pushed rather than polled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, overload
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select

from agentexec.activity.models import Activity
from agentexec.config import CONF
from agentexec.db import reading
from agentexec.errors import (
    ActivityNotFoundError,
    ResultExpiredError,
    TaskCanceledError,
    TaskFailedError,
    UsageError,
)
from agentexec.registry import first_fault
from agentexec.runtime import RUNTIME
from agentexec.signals import End, Signals
from agentexec.task import Status, Task

T = TypeVar("T")

DEFAULT_TIMEOUT = 300.0


@overload
async def get_result(task: Task | UUID | str, timeout: float | None = ..., *, type: None = ...) -> Any: ...
@overload
async def get_result(task: Task | UUID | str, timeout: float | None = ..., *, type: type[T]) -> T: ...
async def get_result(
    task: Task | UUID | str, timeout: float | None = DEFAULT_TIMEOUT, *, type: Any | None = None
) -> Any:
    """Wait for a task and return its result.

    `timeout`: seconds, None for no limit. The result is decoded as `type` if given, else as the return type of
    the task's handler if this process knows the handler, else it is plain JSON data.

    Raises TaskFailedError as soon as the task failed for good, TaskCanceledError, TimeoutError when late,
    ResultExpiredError, ActivityNotFoundError for an unknown agent_id, UnavailableError.
    """
    future = (await _expect([task]))[0]
    return _decode(await _wait(future, timeout), type)


def get_result_sync(
    task: Task | UUID | str, timeout: float | None = DEFAULT_TIMEOUT, *, type: Any | None = None
) -> Any:
    """`get_result` for code without an event loop: the same arguments, result and errors."""
    handle = _look_up([task])[0]
    future = _signals().expect(handle.queue_name, [handle.agent_id])[0]
    try:
        end = future.result(timeout)
    except TimeoutError:
        _signals().forget(handle.agent_id, future)
        raise TimeoutError(_late(handle.agent_id, timeout)) from None
    return _decode(end, type)


async def gather(
    *tasks: Task | UUID | str, timeout: float | None = DEFAULT_TIMEOUT, return_exceptions: bool = False
) -> list[Any]:
    """Wait for several tasks and return their results in the order of the arguments.

    Raises as `get_result` does, at the first task that failed (the others go on and keep their results);
    with `return_exceptions` the errors stand in the list instead. `timeout`: seconds for all together.
    """
    futures = await _expect(tasks)

    async def one(future: _Expected) -> Any:
        return _decode(await _wait(future, None), None)

    waits = [asyncio.ensure_future(one(future)) for future in futures]
    try:
        async with asyncio.timeout(timeout):
            return list(await asyncio.gather(*waits, return_exceptions=return_exceptions))
    except TimeoutError:
        raise TimeoutError(_late(futures[0].agent_id, timeout, len(futures))) from None
    finally:
        for wait in waits:
            wait.cancel()


class _Expected:
    """A future of a task's end, and whose it is."""

    __slots__ = ("agent_id", "future")

    def __init__(self, agent_id: UUID, future: Future[End]) -> None:
        self.agent_id = agent_id
        self.future = future


async def _expect(tasks: Sequence[Task | UUID | str]) -> list[_Expected]:
    return await RUNTIME.in_thread(_expect_blocking, tasks)


def _expect_blocking(tasks: Sequence[Task | UUID | str]) -> list[_Expected]:
    handles = _look_up(tasks)
    queues: dict[str, list[UUID]] = {}
    for handle in handles:
        queues.setdefault(handle.queue_name, []).append(handle.agent_id)
    futures: dict[UUID, list[Future[End]]] = {}
    for queue, agent_ids in queues.items():
        for agent_id, future in zip(agent_ids, _signals().expect(queue, agent_ids), strict=True):
            futures.setdefault(agent_id, []).append(future)
    return [_Expected(handle.agent_id, futures[handle.agent_id].pop()) for handle in handles]


def _look_up(tasks: Sequence[Task | UUID | str]) -> list[Task]:
    """Handles of tasks of which perhaps only the id is known."""
    handles: list[Task] = []
    for task in tasks:
        if isinstance(task, Task):
            handles.append(task)
            continue
        agent_id = task if isinstance(task, UUID) else UUID(task)
        query = select(Activity.agent_type, Activity.queue).where(Activity.agent_id == agent_id)
        with reading(RUNTIME.engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise ActivityNotFoundError(agent_id)
        handles.append(
            Task(agent_id=agent_id, task_name=row.agent_type, queue_name=row.queue or CONF.queue_name)
        )
    return handles


async def _wait(expected: _Expected, timeout: float | None) -> End:
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.wrap_future(expected.future)
    except TimeoutError:
        raise TimeoutError(_late(expected.agent_id, timeout)) from None
    finally:
        if not expected.future.done() or expected.future.cancelled():
            _signals().forget(expected.agent_id, expected.future)


def _late(agent_id: UUID, timeout: float | None, number: int = 1) -> str:
    which = f"Task {agent_id} has" if number == 1 else f"{number} tasks have"
    return f"{which} not ended within {timeout} seconds; still waiting is possible, nothing was canceled."


def _decode(end: End, wanted: Any | None) -> Any:
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
        return json.loads(end.result)
    try:
        return adapter.validate_json(end.result)
    except ValidationError as error:
        raise UsageError(
            f"The result of task {end.task_name} ({end.agent_id}) does not fit the wanted type: {first_fault(error)}."
        ) from None


def _signals() -> Signals:
    return RUNTIME.shared(Signals, lambda: Signals(RUNTIME))
