"""Procrastinate on PostgreSQL; it keeps no results."""

from __future__ import annotations

import os
from typing import Any

import client
from procrastinate import App, PsycopgConnector  # ty: ignore[unresolved-import]

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE"]))


@app.task
async def task(number: int) -> float:
    return client.stamp(number)


class Opened:
    """App that is opened by the first task: within the loop that uses it."""

    open = False


async def opened() -> None:
    if not Opened.open:
        await app.open_async()
        Opened.open = True


async def enqueue(number: int) -> Any:
    await opened()
    return await task.defer_async(number=number)


async def enqueue_many(numbers: list[int]) -> None:
    await opened()
    await task.batch_defer_async(*({"number": number} for number in numbers))


def serve() -> None:
    client.serve(enqueue, None, enqueue_many)
