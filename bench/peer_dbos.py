"""The same pipeline on DBOS: `peer_dbos.py DATABASE_URL NUMBER enqueue|work|direct`, in an environment that has DBOS."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from dbos import DBOS, DBOSConfig  # ty: ignore[unresolved-import]

AT_ONCE = 10

url, number, role = sys.argv[1], int(sys.argv[2]), sys.argv[3]
config: DBOSConfig = {
    "name": "bench",
    "system_database_url": url,
    "log_level": "ERROR",
    "application_version": "1",
}
DBOS(config=config)


@DBOS.step()
async def one(job: dict[str, int]) -> dict[str, int]:
    return job


@DBOS.step()
async def two(job: dict[str, int]) -> dict[str, int]:
    return job


@DBOS.step()
async def three(job: dict[str, int]) -> dict[str, int]:
    return job


@DBOS.step()
async def four(job: dict[str, int]) -> dict[str, int]:
    return job


@DBOS.workflow()
async def four_steps(job: dict[str, int]) -> dict[str, int]:
    return await four(await three(await two(await one(job))))


async def direct() -> None:
    limit = asyncio.Semaphore(2 * AT_ONCE)

    async def run(at: int) -> None:
        async with limit:
            await four_steps({"number": at})

    await run(-1)
    started = time.perf_counter()
    await asyncio.gather(*(run(at) for at in range(number)))
    print(json.dumps({"rate": number / (time.perf_counter() - started)}))


async def enqueue() -> None:
    for at in range(number):
        await DBOS.enqueue_workflow_async("bench", four_steps, {"number": at})


if role != "work":
    DBOS.listen_queues([])
DBOS.launch()
DBOS.register_queue("bench", worker_concurrency=AT_ONCE, polling_interval_sec=0.05)
if role == "enqueue":
    asyncio.run(enqueue())
elif role == "direct":
    asyncio.run(direct())
else:
    time.sleep(600)
DBOS.destroy()
