"""Dramatiq on Redis, with its middleware for results."""

from __future__ import annotations

import os

import client
import dramatiq  # ty: ignore[unresolved-import]
from dramatiq.brokers.redis import RedisBroker  # ty: ignore[unresolved-import]
from dramatiq.results import Results  # ty: ignore[unresolved-import]
from dramatiq.results.backends import RedisBackend  # ty: ignore[unresolved-import]

broker = RedisBroker(url=os.environ["REDIS"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["REDIS"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def task(number: int) -> float:
    return client.stamp(number)


def serve() -> None:
    client.serve(task.send, lambda message: message.get_result(block=True))
