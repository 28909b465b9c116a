"""Celery on Redis: acknowledged late, also if the process is lost, and delivered again after NOTICE_SECONDS."""

from __future__ import annotations

import os
import sys

import work
from celery import Celery  # ty: ignore[unresolved-import]

app = Celery("celery_program", broker=os.environ["REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": work.NOTICE_SECONDS},
    broker_connection_retry_on_startup=True,
)


@app.task(name="task")
def task(key: str) -> None:
    work.do_all(key)


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        work.produce(task.delay)
    else:
        app.worker_main(
            [
                "worker",
                f"--concurrency={work.SLOTS}",
                "--loglevel=WARNING",
                f"--hostname={os.environ['HOST']}-{os.getpid()}@x",
            ]
        )
