"""Docket on Redis streams: run as a program, it is a worker."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import client
from docket import Docket, Worker  # ty: ignore[unresolved-import]


async def task(number: int) -> float:
    return client.stamp(number)


docket = Docket(name="bench", url=os.environ["REDIS"])


async def work() -> None:
    async with docket:
        docket.register(task)
        async with Worker(docket, concurrency=10) as worker:
            await worker.run_forever()


class Opened:
    """Docket that is opened by the first task: within the loop that uses it."""

    open = False


async def enqueue(number: int) -> Any:
    if not Opened.open:
        await docket.__aenter__()
        docket.register(task)
        Opened.open = True
    return await docket.add(task)(number)


def serve() -> None:
    client.serve(enqueue, lambda execution: execution.get_result())


if __name__ == "__main__":
    asyncio.run(work())
