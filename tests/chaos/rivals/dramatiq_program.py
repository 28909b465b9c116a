"""Dramatiq on Redis: a worker counts as dead after NOTICE_SECONDS, and every tenth command looks for dead ones."""

from __future__ import annotations

import os
import sys

import dramatiq  # ty: ignore[unresolved-import]
import work
from dramatiq.brokers.redis import RedisBroker  # ty: ignore[unresolved-import]

dramatiq.set_broker(
    RedisBroker(
        url=os.environ["REDIS"], heartbeat_timeout=work.NOTICE_SECONDS * 1000, maintenance_chance=100_000
    )
)


@dramatiq.actor
def task(key: str) -> None:
    work.do_all(key)


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        work.produce(task.send)
    else:
        command = [
            "-m",
            "dramatiq",
            "dramatiq_program",
            "--processes",
            "2",
            "--threads",
            str(work.SLOTS // 2),
        ]
        os.execv(sys.executable, [sys.executable, *command])
