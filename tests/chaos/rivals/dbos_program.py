"""DBOS on PostgreSQL: each part is a step; a host recovers its own workflows when it starts again."""

from __future__ import annotations

import os
import sys
import time

import work
from dbos import DBOS, DBOSConfig  # ty: ignore[unresolved-import]

config: DBOSConfig = {
    "name": "chaos",
    "system_database_url": os.environ["DATABASE"],
    "log_level": "ERROR",
    "application_version": "1",
    "executor_id": os.environ["HOST"],
}
DBOS(config=config)


@DBOS.step()
def part(key: str, number: int) -> None:
    work.do_part(key, number)


@DBOS.workflow()
def task(key: str) -> None:
    work.write("start", key)
    for number in range(work.PARTS):
        part(key, number)
    work.write("end", key)


if sys.argv[1] == "produce":
    DBOS.listen_queues([])
DBOS.launch()
DBOS.register_queue("chaos", worker_concurrency=work.SLOTS, polling_interval_sec=0.1)
if sys.argv[1] == "produce":
    work.produce(lambda key: DBOS.enqueue_workflow("chaos", task, key))
    DBOS.destroy()
else:
    time.sleep(3600)
