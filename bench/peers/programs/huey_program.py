"""Huey on Redis; its consumer waits for tasks by a blocking pop."""

from __future__ import annotations

import os

import client
from huey import RedisHuey  # ty: ignore[unresolved-import]

huey = RedisHuey("bench", url=os.environ["REDIS"])


@huey.task()
def task(number: int) -> float:
    return client.stamp(number)


def serve() -> None:
    client.serve(task, lambda result: result.get(blocking=True, backoff=1.0, max_delay=0.001))
