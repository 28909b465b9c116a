"""Leftovers of a run: leases, keys, rows, connections, processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psutil
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.runtime import RUNTIME
from agentexec.state.backend import WATCH_TTL_SECONDS, Depth
from agentexec.state.dynamodb_backend.replica import MAX_LOG_ENTRIES
from agentexec.state.dynamodb_backend.table import Table as DynamoTable
from agentexec.state.sql_models import Watch
from agentexec.task import Status
from agentexec.webhooks.record import MESSAGE, PENDING
from agentexec.worker.expiry import expire
from tests.chaos.names import SIDE
from tests.chaos.world import TABLE, World

LASTING_KEYS = (b":intact", b":wake")
"""Ends of the Redis keys that stay for ever."""

QUEUES = (ax.CONF.queue_name, SIDE)

LASTING_TABLES = (
    "schedule",
    "queue_pause",
    "meta",
    "counter",
    "leader",
    "watch",
    "message",
    "event",
    "follow",
)
"""Tables whose rows stay without a task: those of the SQL backend go when their time is over."""

Table = Any


def is_quiet() -> bool:
    """Return True once no task is left to run, in the record and in the queue."""
    table: Table = Activity.__table__
    with reading(RUNTIME.engine) as connection:
        active = connection.scalar(
            select(func.count()).where(table.c.status.in_((Status.QUEUED, Status.RUNNING)))
        )
        pending = connection.scalar(select(func.count()).where(MESSAGE.c.state == PENDING))
    return (
        not active and not pending and all(RUNTIME.backend.depth(queue) == Depth(0, 0, 0) for queue in QUEUES)
    )


def find_leftovers(world: World) -> Iterator[str]:
    """Yield what is left after all hosts were stopped in order."""
    for host, code in world.exit_codes.items():
        if code != 0:
            yield f"host {host} stopped with exit code {code}"
    for process in world.deployment.processes():
        try:
            yield f"process {process.pid} is left: {' '.join(process.cmdline())[:200]}"
        except psutil.Error:
            continue
    for queue in QUEUES:
        depth = RUNTIME.backend.depth(queue)
        if depth != Depth(0, 0, 0):
            yield f"queue {queue} has {depth}"
        if listed := RUNTIME.backend.list_tasks(queue, "").agent_ids:
            yield f"queue {queue} lists {len(listed)} tasks"
    expire(RUNTIME.engine, utc_now() + timedelta(days=400))  # what a worker of another year deletes
    yield from _rows()
    yield from _redis(world)
    yield from _dynamodb(world)
    yield from _connections(world)


def _rows() -> Iterator[str]:
    """Yield tables that still have rows after everything that has ended was pruned."""
    watch: Table = Watch.__table__
    latest = time.time_ns() // 1000 + int(WATCH_TTL_SECONDS * 1.1e6)
    with Session(RUNTIME.engine) as session:
        if count := session.scalar(select(func.count()).where(watch.c.lapses_at > latest)):
            yield f"{count} watches have no end"
        ax.activity.prune(session, timedelta(0))
        session.commit()
        for table in ax.Base.metadata.sorted_tables:
            if table.name.removeprefix(ax.CONF.table_prefix) in LASTING_TABLES:
                continue
            if count := session.scalar(select(func.count()).select_from(table)):
                yield f"{count} rows of {table.name} are left"


def _redis(world: World) -> Iterator[str]:
    if world.redis is None:
        return
    kinds: Counter[str] = Counter()
    with world.redis.client() as client:
        for key in client.scan_iter(count=1000):
            if client.ttl(key) == -1 and not key.endswith(LASTING_KEYS):
                kinds[key.rpartition(b":")[0].decode()[:60]] += 1
        others = [each for each in client.client_list() if each["cmd"] != "client|list"]
    yield from (f"{count} Redis keys {kind}:… have no expiration time" for kind, count in kinds.items())
    if len(others) > OWN_CONNECTIONS:
        yield f"{len(others)} connections to Redis are left: {others}"


def _dynamodb(world: World) -> Iterator[str]:
    """Yield items that DynamoDB would never remove, other than those of the queues, and logs that are not shortened."""
    if world.dynamodb is None:
        return
    kinds: Counter[str] = Counter()
    client = DynamoTable(TABLE).client
    for page in client.get_paginator("scan").paginate(TableName=TABLE):
        for item in page["Items"]:
            if "ttl" not in item:
                kinds[item["pk"]["S"].partition("#")[0]] += 1
    entries = kinds.pop("log", 0)
    if entries > len(QUEUES) * LOGS * MAX_LOG_ENTRIES:
        yield f"{entries} entries of logs are left"
    if kinds.pop("queue", 0) > len(QUEUES) * QUEUE_ITEMS:
        yield "snapshots are left"
    yield from (f"{count} items {kind}#… have no expiration time" for kind, count in kinds.items())


LOGS, QUEUE_ITEMS = 3, 4
"""Entries of a log as multiples of those after which a snapshot is made, and items of its head and snapshots, at most."""

OWN_CONNECTIONS = 10
"""Connections that the driver itself may have."""


def _connections(world: World) -> Iterator[str]:
    if world.database is None:
        return
    with reading(RUNTIME.engine) as connection:
        count = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        locks = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
    if count and count > OWN_CONNECTIONS:
        yield f"{count} connections to PostgreSQL are left"
    if locks:
        yield f"{locks} advisory locks are left"
