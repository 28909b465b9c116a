"""Waiting for several tasks: all their results, or one after the other as the tasks end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agentexec.activity.mailbox import TaskOutcome
from agentexec.client.outcomes import blocking_outcome_stream, outcome_stream
from agentexec.client.results import (
    DEFAULT_TIMEOUT,
    decode,
    decode_or_return_error,
    fetched,
    fetched_sync,
    wanted_codec,
)
from agentexec.task import Task


async def gather(
    *tasks: Task | UUID | str,
    timeout: float | None = DEFAULT_TIMEOUT,
    return_exceptions: bool = False,
    metadata_filter: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Wait for several tasks and return their results. Inside a task the wait occupies no slot of the worker.

    The first task that fails ends the wait. The others continue and keep their results.

    Args:
        *tasks: Handles or agent_ids of the tasks.
        timeout: Seconds for all tasks together; None waits without limit.
        return_exceptions: True to put errors of tasks into the list instead of raising them.
        metadata_filter: Labels that every task must have, as for `ax.activity.detail`.

    Returns:
        The results, in the order of the arguments.

    Raises:
        TaskFailedError: A task failed for good.
        TaskCanceledError: A task was canceled.
        TimeoutError: A task has not ended in time. It continues.
        WaitDeadlockError: The running task waits for one that needs its lock, or its only place in a limit.
        ResultExpiredError: A result was removed after `AGENTEXEC_RESULT_TTL`.
        ActivityNotFoundError: No task has one of the agent_ids, and these labels.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    results: list[Any] = [None] * len(tasks)
    async with outcome_stream(timeout) as stream:
        await stream.add(tasks, metadata_filter)
        async for place, outcome in stream:
            results[place] = decode_or_return_error(await fetched(outcome), return_exceptions)
    return results


def gather_sync(
    *tasks: Task | UUID | str,
    timeout: float | None = DEFAULT_TIMEOUT,
    return_exceptions: bool = False,
    metadata_filter: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Wait for several tasks: `gather` for code without an event loop, with the same arguments, result and errors."""
    results: list[Any] = [None] * len(tasks)
    with blocking_outcome_stream(timeout) as stream:
        stream.add(tasks, metadata_filter)
        for place, outcome in stream:
            results[place] = decode_or_return_error(fetched_sync(outcome), return_exceptions)
    return results


@dataclass(frozen=True, slots=True)
class Completed:
    """A task that has ended, as `as_completed` yields it."""

    task: Task
    """Handle of the task."""

    _outcome: TaskOutcome

    def result(self, type: Any | None = None) -> Any:
        """Return the result of the task.

        Args:
            type: Type that the result is decoded as, as for `get_result`.

        Returns:
            The result of the task.

        Raises:
            TaskFailedError: The task failed for good.
            TaskCanceledError: The task was canceled.
            ResultExpiredError: The result was removed after `AGENTEXEC_RESULT_TTL`.
            UsageError: The result does not fit `type`.
        """
        wanted = None if type is None or self._outcome.stored_result is None else wanted_codec(type)
        return decode(self._outcome, wanted)


async def as_completed(
    tasks: Sequence[Task | UUID | str],
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    metadata_filter: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Completed]:
    """Yield tasks in the order in which they end: `async for done in ax.as_completed(tasks): use(done.result())`.

    Inside a task the wait occupies no slot of the worker. Errors of tasks are raised by `done.result()`.

    Args:
        tasks: Handles or agent_ids of the tasks.
        timeout: Seconds for all tasks together; None waits without limit.
        metadata_filter: Labels that every task must have, as for `ax.activity.detail`.

    Yields:
        Each task when it has ended, with its `task` and its `result()`.

    Raises:
        TimeoutError: A task has not ended in time. It continues.
        WaitDeadlockError: The running task waits for one that needs its lock, or its only place in a limit.
        ActivityNotFoundError: No task has one of the agent_ids, and these labels.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    async with outcome_stream(timeout) as stream:
        handles = await stream.add(tasks, metadata_filter)
        async for place, outcome in stream:
            yield Completed(handles[place], await fetched(outcome))


def as_completed_sync(
    tasks: Sequence[Task | UUID | str],
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    metadata_filter: Mapping[str, Any] | None = None,
) -> Generator[Completed]:
    """Yield tasks in the order in which they end: `for done in ax.as_completed_sync(tasks): use(done.result())`.

    This is `as_completed` for code without an event loop, with the same arguments, items and errors.
    """
    with blocking_outcome_stream(timeout) as stream:
        handles = stream.add(tasks, metadata_filter)
        for place, outcome in stream:
            yield Completed(handles[place], fetched_sync(outcome))
