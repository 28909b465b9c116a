"""Taskiq on Redis streams, acknowledged after the task."""

from __future__ import annotations

import os

import client
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker  # ty: ignore[unresolved-import]

broker = RedisStreamBroker(os.environ["REDIS"]).with_result_backend(
    RedisAsyncResultBackend(os.environ["REDIS"])
)


@broker.task
async def task(number: int) -> float:
    return client.stamp(number)


class Opened:
    """Broker that is opened by the first task: within the loop that uses it."""

    open = False


async def enqueue(number: int) -> object:
    if not Opened.open:
        await broker.startup()
        Opened.open = True
    return await task.kiq(number)


def serve() -> None:
    client.serve(enqueue, lambda handle: handle.wait_result(check_interval=0.001))
