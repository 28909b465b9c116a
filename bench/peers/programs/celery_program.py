"""Celery on Redis, acknowledged after the task, with its results in Redis."""

from __future__ import annotations

import os

import client
from celery import Celery  # ty: ignore[unresolved-import]

app = Celery("celery_program", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)


@app.task(name="task")
def task(number: int) -> float:
    return client.stamp(number)


def serve() -> None:
    client.serve(task.delay, lambda result: result.get(timeout=30))
