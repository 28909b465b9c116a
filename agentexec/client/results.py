"""Waiting for the result of one task, which is pushed to this process rather than polled."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar, overload
from uuid import UUID

from pydantic import ValidationError

from agentexec.activity.mailbox import Mailbox, TaskOutcome
from agentexec.activity.queries.handle import find_task
from agentexec.activity.queries.labels import wanted_labels
from agentexec.arguments.checks import check_timeout, first_line, shown
from agentexec.client.wait_cycles import refuse_deadlock
from agentexec.config import CONF
from agentexec.errors import (
    AgentexecError,
    EncryptionKeyError,
    PayloadLostError,
    ResultExpiredError,
    TaskCanceledError,
    TaskFailedError,
    UsageError,
)
from agentexec.journal.scopes import current_scope
from agentexec.journal.slot_release import slot_released, slot_released_sync
from agentexec.outage import wait_out
from agentexec.payloads.sealing import is_payload
from agentexec.runtime import RUNTIME
from agentexec.task import Status, Task, agent_id_of
from agentexec.values.codec import Codec, codec_of, first_error

T = TypeVar("T")

DEFAULT_TIMEOUT = 300.0
"""Seconds to wait for results by default."""


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
    """Wait for a task and return its result. Inside a task the wait occupies no slot of the worker.

    Args:
        task: Handle or agent_id of the task.
        timeout: Seconds to wait; None waits without limit.
        type: Type that the result is decoded as. By default it is the return type of the handler if this process
            has registered the task, else the result is plain JSON data.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.

    Returns:
        The result of the task.

    Raises:
        TaskFailedError: The task failed for good. Raised as soon as it did.
        TaskCanceledError: The task was canceled.
        TimeoutError: The task has not ended in time. It continues.
        ResultExpiredError: The result was removed after `AGENTEXEC_RESULT_TTL`.
        ActivityNotFoundError: No task has this agent_id and these labels.
        WaitDeadlockError: The running task waits for one that needs its lock, or its only place in a limit.
        UsageError: The result does not fit `type`, or `task` is not an agent_id.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    timeout = check_timeout("timeout=", timeout)
    wanted = None if type is None else wanted_codec(type)
    waiter = running_task()
    [expected] = await RUNTIME.run_patiently(expect, [task], metadata_filter, waiter, limit=timeout)
    if expected.future.done():
        return decode(await fetched(expected.future.result()), wanted)
    async with slot_released():
        try:
            async with asyncio.timeout(timeout):
                outcome = await asyncio.wrap_future(expected.future)
        except TimeoutError:
            raise late_error(expected.task, timeout) from None
        finally:
            expected.forget()
    return decode(await fetched(outcome), wanted)


@overload
def get_result_sync(
    task: Task | UUID | str,
    timeout: float | None = ...,
    *,
    type: None = ...,
    metadata_filter: Mapping[str, Any] | None = ...,
) -> Any: ...
@overload
def get_result_sync(
    task: Task | UUID | str,
    timeout: float | None = ...,
    *,
    type: type[T],
    metadata_filter: Mapping[str, Any] | None = ...,
) -> T: ...
def get_result_sync(
    task: Task | UUID | str,
    timeout: float | None = DEFAULT_TIMEOUT,
    *,
    type: Any | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
) -> Any:
    """Wait for a result: `get_result` for code without an event loop, with the same arguments, result and errors."""
    timeout = check_timeout("timeout=", timeout)
    wanted = None if type is None else wanted_codec(type)
    [expected] = wait_out(expect, [task], metadata_filter, running_task(), limit=timeout)
    if expected.future.done():
        return decode(fetched_sync(expected.future.result()), wanted)
    with slot_released_sync():
        try:
            outcome = expected.future.result(timeout)
        except TimeoutError:
            raise late_error(expected.task, timeout) from None
        finally:
            expected.forget()
    return decode(fetched_sync(outcome), wanted)


class Expected(NamedTuple):
    """A task and the future of its outcome."""

    task: Task
    future: Future[TaskOutcome]

    def forget(self) -> None:
        """Stop waiting, unless the outcome is there."""
        if not self.future.done() or self.future.cancelled():
            _mailbox().unwatch(self.task.agent_id, self.future)


def running_task() -> UUID | None:
    """Return the agent_id of the task that runs this code; None in a script or a web process."""
    scope = current_scope()
    return None if scope is None else scope.recorder.lease.agent_id


def expect(
    tasks: Sequence[Task | UUID | str],
    metadata_filter: Mapping[str, Any] | None = None,
    waiter: UUID | None = None,
) -> list[Expected]:
    """Return futures of the outcomes of tasks. Blocks while the tasks are looked up and watched.

    `waiter` is the running task, which raises WaitDeadlockError if it would wait for ever.
    """
    options: dict[str, Any] = {}
    if waiter is not None:
        options = {"also_read": [waiter], "check": functools.partial(refuse_deadlock, waiter)}
    handles = _find_tasks(tasks, metadata_filter)
    queues: dict[str, list[UUID]] = {}
    for handle in handles:
        queues.setdefault(handle.queue_name, []).append(handle.agent_id)
    futures: dict[UUID, list[Future[TaskOutcome]]] = {}
    try:
        for queue, agent_ids in queues.items():
            watching = _mailbox().watch(queue, agent_ids, **options)
            for agent_id, future in zip(agent_ids, watching, strict=True):
                futures.setdefault(agent_id, []).append(future)
    except BaseException:
        for agent_id, watched in futures.items():
            for future in watched:
                _mailbox().unwatch(agent_id, future)
        raise
    return [Expected(handle, futures[handle.agent_id].pop()) for handle in handles]


def _find_tasks(
    tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None = None
) -> list[Task]:
    """Return the handles of tasks. With a filter, a given handle is looked up too: its labels are unknown."""
    wanted_labels(metadata_filter)  # so that a filter is checked even if there are no tasks
    return [
        task
        if isinstance(task, Task) and metadata_filter is None
        else find_task(RUNTIME.engine, agent_id_of(task), metadata_filter)
        for task in tasks
    ]


def late_error(task: Task, timeout: float | None, number: int = 1) -> TimeoutError:
    """Return the error of a wait that took too long. `number`: the tasks that have not ended; `task` is one of them."""
    subject = f"Task {task.agent_id} has" if number == 1 else f"{number} tasks have"
    return TimeoutError(
        f"{subject} not ended within {timeout} seconds. Nothing was canceled; you can wait again."
    )


def decode(outcome: TaskOutcome, wanted: Codec | None) -> Any:
    """Return the result of an ended task as the wanted type, or raise its error."""
    if outcome.status is not Status.COMPLETE:
        kind = TaskCanceledError if outcome.status is Status.CANCELED else TaskFailedError
        raise kind(
            task_name=outcome.task_name,
            agent_id=outcome.agent_id,
            error=outcome.error,
            attempts=outcome.attempts,
        )
    result = outcome.result
    if result is None:
        if outcome.age > CONF.result_ttl:
            raise ResultExpiredError(outcome.agent_id)
        return None
    codec = _result_codec(outcome.task_name) if wanted is None else wanted
    if codec.is_any:
        try:
            return json.loads(result)
        except (ValueError, RecursionError):
            raise AgentexecError(
                f"The result of task {outcome.task_name} ({outcome.agent_id}) cannot be read: the database does not "
                "hold JSON."
            ) from None
    try:
        return codec.load(result)
    except ValidationError as error:
        raise UsageError(
            f"The result of task {outcome.task_name} ({outcome.agent_id}) does not fit the wanted type: "
            f"{first_error(error)}."
        ) from None


async def fetched(outcome: TaskOutcome) -> TaskOutcome:
    """Return an outcome with a result that need not be fetched any more, which must not happen on the event loop."""
    return await RUNTIME.run_patiently(_fetch, outcome) if is_payload(outcome.stored_result) else outcome


def fetched_sync(outcome: TaskOutcome) -> TaskOutcome:
    """Do what `fetched` does, for code without an event loop."""
    return wait_out(_fetch, outcome) if is_payload(outcome.stored_result) else outcome


def _fetch(outcome: TaskOutcome) -> TaskOutcome:
    try:
        return dataclasses.replace(outcome, stored_result=outcome.result)
    except (EncryptionKeyError, PayloadLostError):
        return outcome  # it raises the error to who asks for the result


def wanted_codec(wanted: Any) -> Codec:
    """Return the codec of a type that a caller wants; raises UsageError for what is not a type."""
    try:
        if isinstance(wanted, str):  # pydantic would look the name up later, in vain
            raise TypeError("a name is not enough")
        return Codec(wanted)
    except Exception as error:  # what pydantic raises depends on the value
        raise UsageError(
            f"type= must be a type that pydantic can read, not {shown(wanted)} ({first_line(error)})."
        ) from None


def decode_or_return_error(outcome: TaskOutcome, return_exceptions: bool) -> Any:
    """Return the result of an ended task. Its error is raised, or returned if `return_exceptions`."""
    try:
        return decode(outcome, None)
    except AgentexecError as error:
        if not return_exceptions:
            raise
        return error


def _result_codec(task_name: str) -> Codec:
    definition = RUNTIME.definition(task_name)
    return codec_of(Any) if definition is None else definition.result


def _mailbox() -> Mailbox:
    return RUNTIME.get_shared(Mailbox, lambda: Mailbox(RUNTIME))
