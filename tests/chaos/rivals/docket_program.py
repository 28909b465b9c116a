"""Docket on Redis: a task whose worker does not renew it is delivered again after NOTICE_SECONDS."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

import work
from docket import Docket, Worker  # ty: ignore[unresolved-import]


async def task(key: str) -> None:
    work.write("start", key)
    for part in range(work.PARTS):
        await asyncio.sleep(work.PART_SECONDS)
        work.write("part", key, part)
    work.write("end", key)


async def main() -> None:
    async with Docket(name="chaos", url=os.environ["REDIS"]) as docket:
        docket.register(task)
        if sys.argv[1] == "work":
            timeout = timedelta(seconds=work.NOTICE_SECONDS)
            async with Worker(docket, concurrency=work.SLOTS, redelivery_timeout=timeout) as worker:
                await worker.run_forever()
        loop = asyncio.get_running_loop()

        def add(key: str) -> None:
            asyncio.run_coroutine_threadsafe(docket.add(task)(key), loop).result()

        await asyncio.to_thread(work.produce, add)


asyncio.run(main())
