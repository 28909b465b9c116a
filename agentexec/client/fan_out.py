"""Wide fan-out: one task for each of many contexts, some at a time, and their results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentexec.client.enqueue import BATCH_SIZE, enqueue_many
from agentexec.client.new_task import Context
from agentexec.client.results import outcome_stream, result_or_error
from agentexec.errors import UsageError


async def map_tasks(
    task_name: str,
    contexts: Iterable[Context],
    *,
    max_in_flight: int | None = None,
    return_exceptions: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> list[Any]:
    """Enqueue one task for each context and return their results in order: `await ax.map("research", contexts)`.

    `max_in_flight`: at most so many of them are accepted and not ended at a time; None for all at once. They are
    enqueued in batches of up to 500, with a round trip for each batch. `timeout`: seconds for all together, None for no
    limit. `options`: those of `ax.enqueue_many`. Inside a task the wait takes no slot of its worker, and tasks that an
    earlier attempt has enqueued are found again.

    Raises as `get_result` does, at the first task that failed (the others go on and keep their results, and no
    further ones are enqueued); with `return_exceptions` the errors stand in the list instead.
    """
    if max_in_flight is not None and max_in_flight < 1:
        raise UsageError(f"max_in_flight must be 1 or more, not {max_in_flight}.")
    waiting = list(contexts)
    results: list[Any] = [None] * len(waiting)
    most = max_in_flight or len(waiting)
    # A batch of its own for each task that ends would be a round trip for each.
    least = min(BATCH_SIZE, max(1, most // 4))
    begun = 0
    async with outcome_stream(timeout) as stream:
        while begun < len(waiting) or stream.pending:
            room = min(most - stream.pending, len(waiting) - begun)
            if room and (room >= min(least, len(waiting) - begun) or not stream.pending):
                batch = waiting[begun : begun + min(room, BATCH_SIZE)]
                await stream.add(await enqueue_many(task_name, batch, **options))
                begun += len(batch)
                continue
            place, end = await anext(stream)
            results[place] = result_or_error(end, return_exceptions)
    return results
