"""Fan-out: one task for each of many contexts, a limited number at a time, and their results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from agentexec.arguments.checks import check_integer, check_iterable
from agentexec.client.enqueue import enqueue_many, enqueue_many_sync
from agentexec.client.new_task import Context, TaskOptions
from agentexec.client.outcomes import blocking_outcome_stream, outcome_stream
from agentexec.client.results import decode_or_return_error, fetched, fetched_sync
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.task import require_known_options


async def map_tasks(
    task_name: str,
    contexts: Iterable[Context],
    *,
    max_in_flight: int | None = None,
    return_exceptions: bool = False,
    timeout: float | None = None,
    **options: Unpack[TaskOptions],
) -> list[Any]:
    """Enqueue one task for each context and return their results: `await ax.map("research", contexts)`.

    Tasks are enqueued in batches of up to 500, with one round trip for each batch. Inside a task the wait occupies no
    slot of the worker, and tasks that an earlier attempt enqueued are found again.

    The first task that fails ends the call: no further tasks are enqueued, and the others continue and keep their results.

    Args:
        task_name: Name of the tasks.
        contexts: One context for each task.
        max_in_flight: Highest number of tasks that are accepted and have not ended; None enqueues all at once.
        return_exceptions: True to put errors of tasks into the list instead of raising them.
        timeout: Seconds for all tasks together; None waits without limit.
        **options: Options of every task, see [`ax.TaskOptions`][agentexec.TaskOptions].

    Returns:
        The results, in the order of the contexts.

    Raises:
        TaskFailedError: A task failed for good.
        TaskCanceledError: A task was canceled.
        TimeoutError: A task has not ended in time. It continues.
        WaitDeadlockError: The running task waits for one that needs its lock, or its only place in a limit.
        ContextInvalidError: A context does not fit the type of the task.
        PayloadTooLargeError: A context or the metadata is above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UsageError: Another argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    require_known_options("map", options, accepts=TaskOptions)
    fan_out = FanOut(contexts, max_in_flight)
    results: list[Any] = [None] * fan_out.size
    async with outcome_stream(timeout) as stream:
        while fan_out.unfinished(stream.expectations.pending):
            if batch := fan_out.next_batch(stream.expectations.pending):
                await stream.add(await enqueue_many(task_name, batch, **options))
            else:
                place, outcome = await anext(stream)
                results[place] = decode_or_return_error(await fetched(outcome), return_exceptions)
    return results


def map_tasks_sync(
    task_name: str,
    contexts: Iterable[Context],
    *,
    max_in_flight: int | None = None,
    return_exceptions: bool = False,
    timeout: float | None = None,
    **options: Unpack[TaskOptions],
) -> list[Any]:
    """Enqueue one task for each context and return their results: `map` for code without an event loop.

    Arguments, result and errors are those of `map`.
    """
    require_known_options("map_sync", options, accepts=TaskOptions)
    fan_out = FanOut(contexts, max_in_flight)
    results: list[Any] = [None] * fan_out.size
    with blocking_outcome_stream(timeout) as stream:
        while fan_out.unfinished(stream.expectations.pending):
            if batch := fan_out.next_batch(stream.expectations.pending):
                stream.add(enqueue_many_sync(task_name, batch, **options))
            else:
                place, outcome = next(stream)
                results[place] = decode_or_return_error(fetched_sync(outcome), return_exceptions)
    return results


class FanOut:
    """Contexts of a fan-out, and the decision how many of them to enqueue next."""

    def __init__(self, contexts: Iterable[Context], max_in_flight: int | None) -> None:
        if max_in_flight is not None:
            max_in_flight = check_integer("max_in_flight=", max_in_flight)
        check_iterable("contexts=", contexts)
        self._contexts = list(contexts)
        self._begun = 0
        self._max_in_flight = max_in_flight or self.size
        # A batch for each task that ends would cost a round trip for each.
        self._min_batch = min(CHUNK_SIZE, max(1, self._max_in_flight // 4))

    @property
    def size(self) -> int:
        """Number of contexts."""
        return len(self._contexts)

    def unfinished(self, pending: int) -> bool:
        """Return True while there are contexts to enqueue, or `pending` tasks to wait for."""
        return self._begun < self.size or pending > 0

    def next_batch(self, pending: int) -> list[Context]:
        """Return the contexts to enqueue now, while `pending` tasks have not ended; empty means to wait for one of them."""
        left = self.size - self._begun
        room = min(self._max_in_flight - pending, left)
        if room <= 0 or (pending and room < min(self._min_batch, left)):
            return []
        batch = self._contexts[self._begun : self._begun + min(room, CHUNK_SIZE)]
        self._begun += len(batch)
        return batch
