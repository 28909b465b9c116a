"""agentexec, as configured by AGENTEXEC_DATABASE_URL and AGENTEXEC_REDIS_URL."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import client
from sqlalchemy import func, select

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME

pool = ax.Pool()


@pool.task("stamp")
async def stamp(agent_id: UUID, context: dict[str, int]) -> float:
    return client.stamp(context["number"])


async def wait_for_record(number: int) -> float:
    query = select(func.count()).where(Activity.status == ax.Status.COMPLETE)
    while True:
        with RUNTIME.engine.connect() as connection:
            if connection.execute(query).scalar_one() >= number:
                return time.time()
        await asyncio.sleep(0.01)


def serve() -> None:
    client.serve(
        lambda number: ax.enqueue("stamp", {"number": number}),
        ax.get_result,
        lambda numbers: ax.enqueue_many("stamp", [{"number": number} for number in numbers]),
        wait_for_record,
    )
