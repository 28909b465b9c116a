"""Cost of telemetry: processor time of a no-op task with metrics, compared with none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import agentexec as ax
from bench.figures import Figure, Size, median_of
from bench.targets import Target
from bench.workers import Workers

WARM_UP = 200
"""Tasks of a worker before it is measured."""

METRICS_QUEUE = "with_metrics"


def telemetry(target: Target, size: Size) -> Iterator[Figure]:
    """Yield what metrics add to the processor time of a no-op task.

    Processor time, because the rates of two drains differ by more than metrics cost. Two workers are up all the time, one of
    them with metrics, on queues of their own. They drain in turn, and the least that each needs counts: other load on
    the machine, caches and the size of batches only add to it.
    """
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    target.reset()
    metrics = {"AGENTEXEC_METRICS_PORT": str(port), "AGENTEXEC_QUEUE_NAME": METRICS_QUEUE}
    with Workers(target) as plain, Workers(target, **metrics) as counting:
        both = ((plain, ax.CONF.queue_name, off := []), (counting, METRICS_QUEUE, on := []))
        for workers, queue, _ in both:
            _milliseconds(target, workers, queue, WARM_UP)
        for _ in range(2 * size.rounds + 1):
            for workers, queue, found in both:
                found.append(_milliseconds(target, workers, queue, size.many))
    yield median_of("processor time of a task", "ms", off)
    yield Figure("processor time of a task, metrics on", 100 * (min(on) / min(off) - 1), "% more")


def _milliseconds(target: Target, workers: Workers, queue: str, number: int) -> float:
    """Return the processor time of all processes of a worker for each of some tasks, which wait for it at once."""
    usual = ax.CONF.queue_name
    workers.pause()
    ax.CONF.queue_name = queue
    try:
        asyncio.run(ax.enqueue_many("noop", [{"number": at} for at in range(number)]))
    finally:
        ax.CONF.queue_name = usual
        workers.resume()
    before = workers.cpu_seconds()
    target.wait_until_over()
    return 1000 * (workers.cpu_seconds() - before) / number
