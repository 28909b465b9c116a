"""Measurements of a target: enqueueing, draining, latencies, waiting tasks, idle processes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

import agentexec as ax
from bench.figures import Figure, Size, interleave, median_of, percentiles
from bench.floors import SQL_BATCH, SQL_ONE, SQL_SAME, SqlFloor
from bench.targets import BenchError, Target
from bench.workers import Workers, pss

CALLERS = 50
KEYS = 100
LOCKS = 1_000
WITHOUT_LOCKS = "drain without lock_key"
WITHOUT_KEYS = "drain without fairness_key"
PAUSE = 0.05
"""Seconds between two tasks of a latency measurement: the workers have just become idle."""

IDLE = 1.1
"""Seconds without a task after which workers are as idle as they get."""

NAP = 0.05
"""Seconds that a task takes, so that its caller waits for the result before it ends."""

MB = 1e6


def enqueue(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the tasks enqueued per second while no workers run, interleaved with the floors of the database."""
    target.reset()
    number = size.enqueues

    async def one_by_one() -> int:
        for at in range(number):
            await ax.enqueue("noop", {"number": at})
        return number

    async def concurrently() -> int:
        numbers = iter(range(number))

        async def caller() -> None:
            for at in numbers:
                await ax.enqueue("noop", {"number": at})

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return number

    def synchronously() -> int:
        for at in range(number):
            ax.enqueue_sync("noop", {"number": at})
        return number

    async def in_bulk() -> int:
        await ax.enqueue_many("noop", ({"number": at} for at in range(size.many)))
        return size.many

    for at in range(20):
        ax.enqueue_sync("noop", {"number": at})  # opens connections
    with SqlFloor(size) as floor:
        work = {
            SQL_ONE: floor.one_by_one,
            SQL_SAME: floor.same_statements,
            "enqueue, one at a time": _run(one_by_one),
            "enqueue_sync, one at a time": synchronously,
            f"enqueue, {CALLERS} callers at once": _run(concurrently),
            SQL_BATCH: floor.in_batches,
            f"enqueue_many of {size.many:,}": _run(in_bulk),
        }
        yield from interleave("tasks/s", work, rounds=size.rounds)


def drain(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the no-op tasks that two worker processes finish per second.

    The workers are up, warm and paused while the tasks are enqueued. The first figure counts from the start of the first
    task to the end of the last one, by the record; "in all" counts from `resume` until no task is left open.
    """
    number = size.many
    for concurrency in (10, 100):
        target.reset()
        by_record: list[float] = []
        in_all: list[float] = []
        with Workers(target, concurrency=concurrency) as workers:
            workers.warm()
            for _ in range(size.rounds):
                since = datetime.now(UTC)
                workers.pause()
                try:
                    asyncio.run(ax.enqueue_many("noop", ({"number": at} for at in range(number))))
                finally:
                    workers.resume()
                resumed = time.time()
                over = target.wait_until_over()
                first, last = target.span(since, number)
                by_record.append(number / (last - first))
                in_all.append(number / (over - resumed))
        what = f"drain of {number:,}, 2 processes of {concurrency}"
        yield median_of(what, "tasks/s", by_record)
        yield median_of(f"{what}, in all", "tasks/s", in_all)


def fairness(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the no-op tasks of many fairness keys that two worker processes finish per second, beside tasks without keys."""
    name = f"drain with fairness_key, {KEYS} keys"
    yield from _beside_plain(target, size, WITHOUT_KEYS, name, "tenant", KEYS, "fairness_key")


def locks(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the no-op tasks with locks that two worker processes finish per second, beside tasks without."""
    name = f"drain with lock_key on {LOCKS:,} keys"
    yield from _beside_plain(target, size, WITHOUT_LOCKS, name, "user", LOCKS, "lock_key")


def _beside_plain(
    target: Target, size: Size, plain: str, keyed: str, prefix: str, keys: int, option: str
) -> Iterator[Figure]:
    """Yield the rates of drains in turn: of tasks without a key, and with an option that takes one of many keys."""
    number = size.many
    rates: dict[str, list[float]] = {plain: [], keyed: []}
    target.reset()
    with Workers(target) as workers:
        workers.warm()
        for _ in range(size.rounds):
            for found, key in zip(rates.values(), (None, "{tenant}"), strict=True):
                since = datetime.now(UTC)
                workers.pause()
                contexts = ({"number": at, "tenant": f"{prefix}-{at % keys}"} for at in range(number))
                options: Any = {option: key}
                try:
                    asyncio.run(ax.enqueue_many("noop", contexts, **options))
                finally:
                    workers.resume()
                target.wait_until_over()
                first, last = target.span(since, number)
                found.append(number / (last - first))
    for name, found in rates.items():
        yield median_of(name, "tasks/s", found)


def pick_up(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the time from `enqueue` to the first line of the handler, on idle workers."""

    async def latencies(number: int, pause: float) -> tuple[list[float], list[float]]:
        calls: list[float] = []
        returns: list[float] = []
        tasks: list[ax.Task] = []
        for at in range(number):
            await asyncio.sleep(pause)
            calls.append(time.time())
            tasks.append(await ax.enqueue("stamp", {"number": at}))
            returns.append(time.time())
        starts = await ax.gather(*tasks, timeout=30)
        return (
            [(start - call) * 1000 for start, call in zip(starts, calls, strict=True)],
            [(start - returned) * 1000 for start, returned in zip(starts, returns, strict=True)],
        )

    target.reset()
    with Workers(target) as workers:
        workers.warm()
        for number, pause, when in (
            (size.pick_ups, PAUSE, f"after {PAUSE * 1000:.0f} ms"),
            (size.rests, IDLE, f"after {IDLE:g} s"),
        ):
            from_call, from_return = asyncio.run(latencies(number, pause))
            yield from percentiles(f"pick-up {when} of rest, from enqueue's return", from_return)
            yield from percentiles(f"pick-up {when} of rest, from its call", from_call)


def results(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the time from the last line of a handler to the return of `get_result`."""

    async def latencies(seconds: float) -> list[float]:
        times: list[float] = []
        for at in range(size.results):
            task = await ax.enqueue("stamp", {"number": at, "seconds": seconds})
            ended = await ax.get_result(task, timeout=30)
            times.append((time.time() - ended) * 1000)
        return times

    target.reset()
    with Workers(target) as workers:
        workers.warm()
        asyncio.run(ax.get_result(ax.enqueue_sync("stamp", {}), timeout=30))  # opens the mailbox
        yield from percentiles("get_result of a task that takes 50 ms", asyncio.run(latencies(NAP)))
        yield from percentiles("get_result of a no-op task", asyncio.run(latencies(0.0)))


def sleepers(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the wall time of tasks that each wait a second, from the call of `enqueue_many` to the last end."""
    runs = [(size.sleepers, 250), *([(10_000, 5_000)] if size.full else [])]
    for number, concurrency in runs:
        target.reset()
        with Workers(target, concurrency=concurrency) as workers:
            workers.warm()
            family = [process for role in workers.roles().values() for process in role]
            with _Peak(lambda family=family: pss(family)) as peak:
                since = datetime.now(UTC)
                called = time.time()
                contexts = ({"number": at, "seconds": 1.0} for at in range(number))
                asyncio.run(ax.enqueue_many("sleep", contexts))
                over = target.wait_until_over()
            first, last = target.span(since, number)
        what = f"{number:,} tasks of 1 s, 2 processes of {concurrency:,}"
        yield Figure(what, over - called, "s")
        yield Figure(f"{what}, by the record", last - first, "s")
        yield Figure(f"{what}, memory in all", peak.value / MB, "MB")


def idle(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the CPU and memory that idle processes use."""
    target.reset()
    with Workers(target) as workers:
        workers.warm()
        time.sleep(2.0)  # until the last task is cleaned up
        roles = workers.roles()
        before = {process.pid: process.cpu_times() for role in roles.values() for process in role}
        start = time.monotonic()
        time.sleep(size.idle_seconds)
        took = time.monotonic() - start
        for role, processes in roles.items():
            shares: list[float] = []
            for process in processes:
                now, then = process.cpu_times(), before[process.pid]
                used = now.user - then.user + now.system - then.system
                shares.append(100 * max(0.0, used) / took)
            yield Figure(f"idle {role}", fmean(shares), "% CPU", note=_each(len(shares)))
        for role, processes in roles.items():
            sizes = [pss([process]) / MB for process in processes]
            yield Figure(f"memory of a {role}", fmean(sizes), "MB", note=_each(len(sizes)))


def _each(number: int) -> str:
    return f"mean of {number}" if number > 1 else ""


def _run(work: Callable[[], Awaitable[int]]) -> Callable[[], int]:
    async def main() -> int:
        return await work()

    return lambda: asyncio.run(main())


class _Peak:
    """Maximum of a reading during a `with` block."""

    def __init__(self, read: Callable[[], float], every: float = 0.25) -> None:
        self._read = read
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.value = 0.0

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if not self.value:
            raise BenchError("memory could not be read")

    def _watch(self) -> None:
        while True:
            self.value = max(self.value, self._read())
            if self._over.wait(self._every):
                return
