"""DBOS on PostgreSQL or SQLite: run as a program, it is a worker."""

from __future__ import annotations

import os
import time
from typing import Any

import client
from dbos import DBOS  # ty: ignore[unresolved-import]

DBOS(
    config={
        "name": "bench",
        "system_database_url": os.environ["DATABASE"],
        "log_level": "ERROR",
        "application_version": "1",
        "run_admin_server": False,
    }
)


@DBOS.workflow()
async def task(number: int) -> float:
    return client.stamp(number)


async def enqueue(number: int) -> Any:
    return await DBOS.enqueue_workflow_async("bench", task, number)


def launch(*, works: bool) -> None:
    if not works:
        DBOS.listen_queues([])
    DBOS.launch()
    DBOS.register_queue("bench", worker_concurrency=10, polling_interval_sec=0.01)


def serve() -> None:
    launch(works=False)
    client.serve(enqueue, lambda handle: handle.get_result(polling_interval_sec=0.01))


if __name__ == "__main__":
    launch(works=True)
    time.sleep(3600)
