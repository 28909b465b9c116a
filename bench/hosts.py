"""Command `python -m bench hosts`: cost of many hosts for their servers, idle and at work.

Each host is a whole `agentexec worker` with one worker process, all on this machine; its tasks do nothing. Work is counted by
the servers themselves (transactions, commands) and by processor time, since so many processes on one machine take it from
each other.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

import psutil
import psycopg
import pymysql

import agentexec as ax
from bench.targets import Target, opened
from bench.workers import Workers
from tests.servers import HOST, MariaDB, Postgres, Server

TARGETS = ("redis+postgres", "postgres", "redis+mariadb", "mariadb")
CONNECTIONS_OF_HOST = 8
CONNECTIONS_BESIDE = 50
SETTLE_SECONDS = 15.0
"""Seconds after the last start until what a start does once is over."""

HEADS = (
    "hosts",
    "{unit}/s, idle",
    "commands/s, idle",
    "servers, idle, % of a CPU",
    "a host, idle, % of a CPU",
    "tasks/s",
    "{unit} for a task",
    "commands for a task",
    "servers, ms for a task",
    "hosts, ms for a task",
)
"""Columns. The unit is what the database counts; commands are those of Redis, or requests to DynamoDB."""


class Reading(NamedTuple):
    """Totals of servers and hosts at a moment: numbers, and seconds of processor time."""

    at: float
    counted: float
    commands: float
    servers: float
    hosts: float


def main(arguments: Sequence[str]) -> int:
    """Measure each number of hosts on each target, and print a table of each."""
    parser = argparse.ArgumentParser(prog="bench hosts", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS[:2]))
    parser.add_argument("--hosts", nargs="+", type=int, default=[1, 10, 30, 100])
    parser.add_argument("--seconds", type=float, default=20.0, help="time for which idle hosts are watched")
    parser.add_argument("--tasks", type=int, default=5_000)
    options = parser.parse_args(arguments)
    for name in options.targets:
        connections = CONNECTIONS_BESIDE + CONNECTIONS_OF_HOST * max(options.hosts)
        heads = " | ".join(HEADS).format(unit=unit_of(name))
        print(f"\n{name}\n\n| {heads} |\n{'| ---: ' * len(HEADS)}|", flush=True)
        with opened(name, connections=connections) as target, ExitStack() as stack:
            hosts: list[Workers] = []
            for number in sorted(options.hosts):
                while len(hosts) < number:
                    hosts.append(stack.enter_context(Workers(target, processes=1)))
                cells = measure(target, hosts, options.seconds, options.tasks)
                print(f"| {' | '.join(f'{cell:,.4g}' for cell in cells)} |", flush=True)
    return 0


def unit_of(target: str) -> str:
    """Return what the database of a target counts."""
    return "statements" if target.endswith("mariadb") else "transactions"


def measure(target: Target, hosts: Sequence[Workers], seconds: float, tasks: int) -> Iterator[float]:
    """Yield the cells of a row: hosts that are idle for a while, and then run tasks."""
    time.sleep(SETTLE_SECONDS)
    before = _read(target, hosts)
    time.sleep(seconds)
    after = _read(target, hosts)
    took = after.at - before.at
    yield len(hosts)
    yield (after.counted - before.counted) / took
    yield (after.commands - before.commands) / took
    yield 100 * (after.servers - before.servers) / took
    yield 100 * (after.hosts - before.hosts) / took / len(hosts)
    asyncio.run(ax.enqueue_many("noop", [{"number": number} for number in range(100)]))
    target.wait_until_over()
    before = _read(target, hosts)
    asyncio.run(ax.enqueue_many("noop", [{"number": number} for number in range(tasks)]))
    target.wait_until_over()
    after = _read(target, hosts)
    yield tasks / (after.at - before.at)
    yield (after.counted - before.counted) / tasks
    yield (after.commands - before.commands) / tasks
    yield 1000 * (after.servers - before.servers) / tasks
    yield 1000 * (after.hosts - before.hosts) / tasks


def _read(target: Target, hosts: Sequence[Workers]) -> Reading:
    commands = float(target.dynamodb.requests()) if target.dynamodb is not None else 0.0
    if target.valkey is not None:
        with target.valkey.client() as client:
            commands = float(client.info("stats")["total_commands_processed"])
    servers = [server for server in (target.database_server, target.valkey) if server is not None]
    return Reading(
        time.monotonic(),
        _counted(target.database_server),
        commands,
        sum(_processor_time(server) for server in servers),
        sum(host.cpu_seconds() for host in hosts),
    )


def _counted(server: Server | None) -> float:
    """Return the transactions that PostgreSQL counts so far, or the statements that MariaDB does."""
    if isinstance(server, Postgres):
        conninfo = f"host={HOST} port={server.port} user=postgres dbname=postgres"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            # Processes tell the statistics what they did about once a second.
            query = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database"
            row = connection.execute(query).fetchone()
        return float(row[0]) if row else 0.0
    if isinstance(server, MariaDB):
        with (
            pymysql.connect(host=HOST, port=server.port, user="root", autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
            row = cursor.fetchone()
        return float(row[1]) if row else 0.0
    return 0.0


def _processor_time(server: Server) -> float:
    """Return the processor time of a server and its processes; those that have ended count with their parent."""
    times = psutil.Process(server.pid).cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for process in psutil.Process(server.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended since the list was made
            used = process.cpu_times()
            total += used.user + used.system
    return total
