"""Command `python -m bench streams`: many clients read live events from one web process, and some of them never read.

The server is one uvicorn process. Its clients, and the publisher of the events, are this process, so on a machine with few
processors they compete with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psutil

import agentexec as ax
from agentexec.activity.live.publisher import event_publisher
from agentexec.runtime import RUNTIME
from bench.targets import NAMES, Target, opened
from tests.servers import free_port
from tests.waiting import wait_until

TEXT = "word " * 8
PROGRAM = """
import uvicorn, sys
from fastapi import FastAPI
import agentexec as ax
app = FastAPI()
app.include_router(ax.web.router(caller=lambda: ax.web.Caller()))
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
"""


@dataclass
class Load:
    """Load on the server: clients by task, events by second."""

    clients: int
    tasks: int
    stalled: int
    """Clients that never read."""
    seconds: float
    rate: float
    """Events of each task in a second."""
    lines: float = 0.2
    """Log lines of each task in a second."""
    path: str = "events"


@dataclass
class Outcome:
    """Delays of the events at the clients, and the cost for the server."""

    delays: list[float] = field(default_factory=list)
    """Seconds from the publication of an event until a client had it."""
    dropped: int = 0
    ended: int = 0
    connected: float = 0.0
    """Seconds until all clients were connected."""
    memory: tuple[int, int, int] = (0, 0, 0)
    """Bytes of the server before it has clients, with all connected, and at the end."""
    cpu: float = 0.0
    """Processor seconds of the server while events flowed."""
    elapsed: float = 0.0


def main(arguments: Sequence[str]) -> int:
    """Measure and print, for each target."""
    parser = argparse.ArgumentParser(prog="bench streams", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--stalled", type=int, default=20, help="clients that never read, beside the others")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=5.0, help="events of each task in a second")
    parser.add_argument("--lines", type=float, default=0.2, help="log lines of each task in a second")
    parser.add_argument("--path", choices=["events", "ag-ui", "ai-sdk"], default="events")
    options = parser.parse_args(arguments)
    names = options.targets
    del options.targets
    load = Load(**vars(options))
    for name in names:
        with opened(name) as target:
            print(f"{name} ({target.servers}), {load}", flush=True)
            for line in lines(asyncio.run(measure(target, load)), load):
                print(f"  {line}", flush=True)
    return 0


def lines(outcome: Outcome, load: Load) -> list[str]:
    """Return the outcome for people."""
    before, connected, after = (size / 1e6 for size in outcome.memory)
    cuts = statistics.quantiles(outcome.delays, n=100) if len(outcome.delays) > 1 else [0.0] * 99
    number = len(outcome.delays)
    return [
        f"connected {load.clients + load.stalled} clients in {outcome.connected:.1f} s",
        f"memory of the server: {before:.0f} MB, with clients {connected:.0f} MB, at the end {after:.0f} MB",
        f"delivered {number:,} events ({number / outcome.elapsed:,.0f}/s), {outcome.dropped} gaps, "
        f"{outcome.ended} of {load.clients} clients to the end",
        f"processor of the server: {100 * outcome.cpu / outcome.elapsed:.0f}% of one, "
        f"{1e6 * outcome.cpu / max(1, number):.0f} µs for each event",
        f"delay: median {1000 * cuts[49]:.0f} ms, 95% {1000 * cuts[94]:.0f} ms, 99% {1000 * cuts[98]:.0f} ms, "
        f"highest {1000 * max(outcome.delays, default=0):.0f} ms",
    ]


async def measure(target: Target, load: Load) -> Outcome:
    """Run the load against a server of its own."""
    outcome = Outcome()
    tasks = [await asyncio.to_thread(ax.activity.create, "bench") for _ in range(load.tasks)]
    with _server(target) as (port, process):
        before = process.memory_info().rss
        started = time.monotonic()
        stalled = [await _stall(port, tasks[at % load.tasks], load.path) for at in range(load.stalled)]
        ready = asyncio.Semaphore(0)
        clients = [
            asyncio.create_task(_read(port, tasks[at % load.tasks], load.path, outcome, ready))
            for at in range(load.clients)
        ]
        for _ in clients:
            await asyncio.wait_for(ready.acquire(), 120)
        outcome.connected = time.monotonic() - started
        connected = process.memory_info().rss
        cpu, started = _cpu(process), time.monotonic()
        await _publish(tasks, load)
        await asyncio.wait_for(asyncio.gather(*clients), 120)
        outcome.elapsed, outcome.cpu = time.monotonic() - started, _cpu(process) - cpu
        outcome.memory = before, connected, process.memory_info().rss
        for client in stalled:
            client.close()
    return outcome


async def _publish(tasks: Sequence[UUID], load: Load) -> None:
    """Publish at a steady rate, then end the tasks."""
    publisher = event_publisher()
    pause = 1 / (load.rate * len(tasks))
    started = time.monotonic()
    for number in range(int(load.seconds * load.rate * len(tasks))):
        task = tasks[number % len(tasks)]
        data = {"call_id": str(number), "output": f"<sent {time.time():.6f}> {TEXT}"}
        publisher.publish(task, "tool_output", data)
        if load.lines and number // len(tasks) % max(1, round(load.rate / load.lines)) == 0:
            await asyncio.to_thread(ax.activity.update, task, f"Event {number}")
        ahead = started + (number + 1) * pause - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
    await asyncio.to_thread(publisher.flush, list(tasks))
    for task in tasks:
        await asyncio.to_thread(ax.activity.complete, task)


async def _read(port: int, task: UUID, path: str, outcome: Outcome, ready: asyncio.Semaphore) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(_request(task, path))
    first = True
    while line := await reader.readline():
        if first and line.startswith(b"data: "):
            first = False
            ready.release()
        if b"<sent " in line:
            outcome.delays.append(time.time() - float(line.partition(b"<sent ")[2].partition(b">")[0]))
        elif b'"dropped"' in line and line.startswith(b"data: "):
            outcome.dropped += 1
        elif line.startswith(b"data: ") and _is_last(line):
            outcome.ended += 1
            break
    writer.close()


def _is_last(line: bytes) -> bool:
    return any(end in line for end in (b'"type":"result"', b"RUN_FINISHED", b"[DONE]"))


async def _stall(port: int, task: UUID, path: str) -> socket.socket:
    """Return a connection that asks for events and reads none of them."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.to_thread(client.connect, ("127.0.0.1", port))
    client.sendall(_request(task, path))
    return client


def _request(task: UUID, path: str) -> bytes:
    return f"GET /activity/{task}/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@contextmanager
def _server(target: Target) -> Generator[tuple[int, psutil.Process]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port)],
        env={**os.environ, **target.environment, "AGENTEXEC_WORKER_LOG_LEVEL": "ERROR"},
        cwd=target.folder,
    )
    try:
        wait_until(lambda: _answers(port), timeout=60)
        yield port, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()
        RUNTIME.close()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
