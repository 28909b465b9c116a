"""Client of every queue: obeys commands on its standard input, and prints what it measured, one line of JSON each.

Needs nothing but Python: it runs in each queue's environment.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

REST = 0.03
"""Seconds before each task of a latency measurement: the workers have just become idle."""

LATEST = 120.0
"""Seconds within which a stamp must arrive."""

Enqueue = Callable[[int], Any]


def stamp(number: int) -> float:
    """Tell the client that a task started, and return the time. Called by handlers, in the workers."""
    at = time.time()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(f"{number} {at}".encode(), os.environ["STAMPS"])
    return at


class Stamps:
    """Times at which tasks started, as their handlers tell."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(os.environ["STAMPS"])
        self._changed = threading.Condition()
        self._times: dict[int, float] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            number, at = self._socket.recv(100).split()
            with self._changed:
                self._times[int(number)] = float(at)
                self._changed.notify_all()

    def wait(self, numbers: Iterable[int]) -> list[float]:
        """Wait for the tasks with these numbers, and return when they started."""
        wanted = [*numbers]
        with self._changed:
            if not self._changed.wait_for(lambda: all(number in self._times for number in wanted), LATEST):
                raise TimeoutError("a task did not start")
            return [self._times[number] for number in wanted]


def serve(
    enqueue: Enqueue,
    result: Callable[[Any], Any] | None = None,
    enqueue_many: Callable[[list[int]], Any] | None = None,
    wait_for_record: Callable[[int], Awaitable[float]] | None = None,
) -> None:
    """Obey the commands.

    Args:
        enqueue: Enqueues a task with a number, and returns its handle. It may be a coroutine function, as the others.
        result: Waits for the result of a handle.
        enqueue_many: Enqueues tasks by the queue's own call for many.
        wait_for_record: Waits until as many tasks as given are recorded as complete, and returns the time.
    """
    asyncio.run(_Client(enqueue, result, enqueue_many, wait_for_record).run())


async def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    outcome = function(*arguments)
    return await outcome if inspect.isawaitable(outcome) else outcome


class _Client:
    def __init__(self, enqueue: Enqueue, result: Any, enqueue_many: Any, wait_for_record: Any) -> None:
        self._enqueue, self._result, self._enqueue_many = enqueue, result, enqueue_many
        self._wait_for_record = wait_for_record
        self._stamps, self._next = Stamps(), 0

    async def run(self) -> None:
        say({"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, number = line.split()
            say(await getattr(self, name)(int(number)))

    def _numbers(self, count: int) -> list[int]:
        self._next += count
        return [*range(self._next - count, self._next)]

    async def warm(self, count: int) -> Any:
        """Run tasks until the workers are up."""
        numbers = self._numbers(count)
        for number in numbers:
            await _call(self._enqueue, number)
        await asyncio.to_thread(self._stamps.wait, numbers)
        return {}

    async def pick_up(self, count: int) -> Any:
        """Milliseconds from the call that enqueues to the first line of the handler."""
        calls, numbers = [], self._numbers(count)
        for number in numbers:
            await asyncio.sleep(REST)
            calls.append(time.time())
            await _call(self._enqueue, number)
            await asyncio.to_thread(self._stamps.wait, [number])
        starts = await asyncio.to_thread(self._stamps.wait, numbers)
        return {"ms": [(start - call) * 1000 for start, call in zip(starts, calls)]}  # noqa: B905 - any Python

    async def results(self, count: int) -> Any:
        """Milliseconds from the call that enqueues to the value in hand."""
        if self._result is None:
            return {"ms": []}
        times = []
        for number in self._numbers(count):
            await asyncio.sleep(REST)
            called = time.perf_counter()
            await _call(self._result, await _call(self._enqueue, number))
            times.append((time.perf_counter() - called) * 1000)
        return {"ms": times}

    async def one_by_one(self, count: int) -> Any:
        """Tasks enqueued each second, one after the other; no worker runs meanwhile."""
        numbers = self._numbers(count)
        began = time.perf_counter()
        for number in numbers:
            await _call(self._enqueue, number)
        return {"rate": count / (time.perf_counter() - began)}

    async def in_bulk(self, count: int) -> Any:
        """Tasks enqueued each second by the call for many; by single calls, and no rate, where there is none."""
        numbers = self._numbers(count)
        began = time.perf_counter()
        if self._enqueue_many is None:
            for number in numbers:
                await _call(self._enqueue, number)
            return {"rate": None}
        await _call(self._enqueue_many, numbers)
        return {"rate": count / (time.perf_counter() - began)}

    async def drained(self, count: int) -> Any:
        """Moments at which a fifth of the tasks and the last one started, and at which the record has all as complete.

        The last is None for a queue without a record.
        """
        numbers = range(self._next - count, self._next)
        starts = sorted(await asyncio.to_thread(self._stamps.wait, numbers))
        recorded = await self._wait_for_record(self._next) if self._wait_for_record else None
        return {"warm": starts[count // 5], "last": starts[-1], "recorded": recorded}


def say(facts: Any) -> None:
    """Print what was measured."""
    print(json.dumps(facts), flush=True)
