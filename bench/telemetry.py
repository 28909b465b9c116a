"""Cost of telemetry: processor time of a no-op task with metrics, compared with none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import agentexec as ax
from bench.figures import Figure, Size, median_of
from bench.targets import Target
from bench.workers import Workers


def telemetry(target: Target, size: Size) -> Iterator[Figure]:
    """Yield what metrics add to the processor time of a no-op task.

    Processor time, because the rates of two drains differ by more than metrics cost.
    """
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    off, on = [], []
    for _ in range(size.rounds):
        off.append(_milliseconds(target, size.many))
        on.append(_milliseconds(target, size.many, AGENTEXEC_METRICS_PORT=str(port)))
    yield median_of("processor time of a task", "ms", off)
    shares = [100 * (with_metrics / without - 1) for with_metrics, without in zip(on, off, strict=True)]
    yield median_of("processor time of a task, metrics on", "% more", shares)


def _milliseconds(target: Target, number: int, **environment: str) -> float:
    """Return the processor time of all processes of a worker for each of some tasks."""
    target.reset()
    with Workers(target, **environment) as workers:
        workers.warm()
        before = workers.cpu_seconds()
        asyncio.run(ax.enqueue_many("noop", [{"number": at} for at in range(number)]))
        target.wait_until_over()
        return 1000 * (workers.cpu_seconds() - before) / number
