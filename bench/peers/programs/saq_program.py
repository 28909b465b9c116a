"""SAQ on Redis."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import client
from saq import Queue  # ty: ignore[unresolved-import]

queue = Queue.from_url(os.environ["REDIS"])


async def task(context: dict[str, Any], *, number: int) -> float:
    return client.stamp(number)


settings = {"queue": queue, "functions": [task], "concurrency": 10}


async def result(job: Any) -> None:
    # A job that ends before its caller listens is told to nobody.
    while not job.completed:
        with suppress(TimeoutError):
            await job.refresh(0.5)


def serve() -> None:
    client.serve(lambda number: queue.enqueue("task", number=number), result)
