"""Tasks for the tests' workers. Each writes what it does to a ledger file, and the tests count its lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax
from agentexec.activity.live import publisher as live
from agentexec.worker.event_loop import MainTask

pool = ax.Pool()


class Job(BaseModel):
    """Instructions for a task; `key` names it in the ledger."""

    key: str
    seconds: float = 0.0
    times: int = 0
    value: Any = None
    gate: str = ""
    """File that the task waits for."""


class Sum(BaseModel):
    total: int


def write_ledger(event: str, key: str) -> None:
    """Write one line for one event. O_APPEND keeps lines of several processes whole."""
    line = f"{event} {key} {os.getpid()} {time.time():.3f}\n".encode()
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


def start_count(key: str) -> int:
    """Return the number of starts of a task so far."""
    return Path(os.environ["LEDGER"]).read_text().count(f"start {key} ")


@pool.task("work")
async def work(agent_id: UUID, context: Job) -> Any:
    write_ledger("start", context.key)
    if context.seconds:
        await asyncio.sleep(context.seconds)
    write_ledger("end", context.key)
    return context.value if context.value is not None else context.key


@pool.task("sync_work")
def sync_work(agent_id: UUID, context: Job) -> str:
    write_ledger("start", context.key)
    time.sleep(context.seconds)
    write_ledger("end", context.key)
    return context.key


@pool.task("add")
async def add(agent_id: UUID, context: Job) -> Sum:
    return Sum(total=context.times + 1)


@pool.task("report")
async def report(agent_id: UUID, context: Job) -> None:
    for number in range(context.times):
        ax.activity.update(
            agent_id, f"Step {number + 1} of {context.times}", percentage=100 * number // context.times
        )
        await asyncio.sleep(context.seconds)


@pool.task("speaks")
async def speaks(agent_id: UUID, context: Job) -> str:
    """Publish a text word by word `times` times, as a model streams it, and report."""
    write_ledger("start", context.key)
    while context.gate and not await asyncio.to_thread(Path(context.gate).exists):  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.02)
    words = str(context.value).split(" ")
    for _ in range(max(1, context.times)):
        for word in words:
            live.publish(agent_id, "text_delta", {"text": f"{word} "})
            await asyncio.sleep(context.seconds)
    live.publish(agent_id, "tool_called", {"tool": "search", "arguments": "{}", "call_id": "call_1"})
    ax.activity.update(agent_id, "Half way", percentage=50)
    live.publish(agent_id, "tool_output", {"tool": "search", "call_id": "call_1", "output": "found"})
    live.publish(agent_id, "text_delta", {"text": "The end."})
    return "spoken"


class PanicError(BaseException):
    """An error as extensions in Rust raise it."""


ODD_ERRORS: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: PanicError("index out of bounds"),
    "generator": GeneratorExit,
    "stop": StopIteration,
    "exit": lambda: SystemExit(2),
    "interrupt": KeyboardInterrupt,
    "cancel": asyncio.CancelledError,
}


def raise_odd(kind: str) -> None:
    raise ODD_ERRORS[kind]()


async def raise_odd_async(kind: str) -> None:
    raise_odd(kind)


@pool.task("fails", retries=1)
async def fails(agent_id: UUID, context: Job) -> None:
    """Raise an odd error at a place; `value` is both, as in "exit in branch"."""
    write_ledger("start", context.key)
    kind, place = str(context.value).split(" in ")
    match place:
        case "handler":
            raise_odd(kind)
        case "branch":
            await asyncio.gather(raise_odd_async(kind), asyncio.sleep(0))
        case "thread":
            await asyncio.to_thread(raise_odd, kind)
        case "step":
            await Steps(agent_id).step("fail", raise_odd_async, kind)
        case "plain step":
            await Steps(agent_id).step("fail", raise_odd, kind)


@pool.task("fails_in_thread", retries=1)
def fails_in_thread(agent_id: UUID, context: Job) -> None:
    write_ledger("start", context.key)
    raise_odd(str(context.value))


@pool.task("stops_loop")
async def stops_loop(agent_id: UUID, context: Job) -> None:
    asyncio.get_running_loop().stop()


@pool.task("ends_loop")
async def ends_loop(agent_id: UUID, context: Job) -> str:
    """End the event loop for good, in the first attempt: its main task ends."""
    write_ledger("start", context.key)
    if start_count(context.key) == 1:
        for task in asyncio.all_tasks():
            if isinstance(task, MainTask):
                asyncio.Task.cancel(task)
        await asyncio.sleep(60)
    return context.key


@pool.task("poison")
async def poison(agent_id: UUID, context: Job) -> None:
    write_ledger("start", context.key)
    await asyncio.sleep(context.seconds)
    os.kill(os.getpid(), signal.SIGSEGV)


class Steps(ax.BaseAgentRunner):
    """Runner that only offers its steps."""

    async def run(self, agent: Any, input: Any) -> None: ...


@pool.task("dies")
async def dies(agent_id: UUID, context: Job) -> str:
    """Crash in each attempt as its letter in `value` says, and complete in the attempt without a letter.

    "s": after one more step; "r": after a step that raises; "-": with nothing new.
    """
    tries = start_count(context.key)
    write_ledger("start", context.key)
    runner = Steps(agent_id)

    def step(number: int) -> None:
        write_ledger("step", f"{context.key}-{number}")

    def refuse() -> None:
        raise ValueError("no")

    for number in range(context.value[: tries + 1].count("s")):
        await runner.step("step", step, number)
    if context.value[tries : tries + 1] == "r":
        with contextlib.suppress(ValueError):
            await runner.step("refuse", refuse)
    if tries < len(context.value):
        os.kill(os.getpid(), signal.SIGKILL)
    return "got to the end"


@pool.task("fail")
async def fail(agent_id: UUID, context: Job) -> None:
    write_ledger("start", context.key)
    raise ValueError(f"no luck with {context.key}")


@pool.task("flaky", retries=3)
async def flaky(agent_id: UUID, context: Job) -> str:
    """Fail the first `times` times."""
    write_ledger("start", context.key)
    tries = start_count(context.key)
    if tries <= context.times:
        raise RuntimeError(f"try {tries}")
    return f"done at try {tries}"


@pool.task("slow", timeout=0.3)
async def slow(agent_id: UUID, context: Job) -> None:
    await asyncio.sleep(60)


@pool.task("exits")
async def exits(agent_id: UUID, context: Job) -> None:
    sys.exit(3)


@pool.task("unserializable")
async def unserializable(agent_id: UUID, context: Job) -> object:
    return object()


@pool.task("blocks")
async def blocks(agent_id: UUID, context: Job) -> str:
    """Block the event loop, as careless code does."""
    write_ledger("start", context.key)
    time.sleep(context.seconds)  # noqa: ASYNC251 - blocking is the point
    write_ledger("end", context.key)
    return context.key


@pool.task("stubborn")
async def stubborn(agent_id: UUID, context: Job) -> None:
    """Refuse to be canceled."""
    write_ledger("start", context.key)
    deadline = time.monotonic() + context.seconds
    while time.monotonic() < deadline:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            write_ledger("refused", context.key)


@pool.task("slow_once")
async def slow_once(agent_id: UUID, context: Job) -> str:
    """Take `seconds` at the first start and no time later, so that the start after a fault is seen immediately."""
    tries = start_count(context.key)
    write_ledger("start", context.key)
    await asyncio.sleep(0 if tries else context.seconds)
    write_ledger("end", context.key)
    return context.key


@pool.task("slow_once_in_thread")
def slow_once_in_thread(agent_id: UUID, context: Job) -> str:
    """Do as `slow_once`, as a plain function, which nothing can interrupt."""
    tries = start_count(context.key)
    write_ledger("start", context.key)
    time.sleep(0 if tries else context.seconds)
    write_ledger("end", context.key)
    return context.key


@pool.task("tells")
async def tells(agent_id: UUID, context: Job) -> int:
    """Block the loop, so that nothing can stop it before it reports, and return the process id."""
    write_ledger("start", context.key)
    time.sleep(context.seconds)  # noqa: ASYNC251 - blocking is the point
    ax.activity.update(agent_id, f"Seen to by {os.getpid()}", percentage=90)
    write_ledger("end", context.key)
    return os.getpid()


@pool.task("waits_for_cancel")
async def waits_for_cancel(agent_id: UUID, context: Job) -> None:
    write_ledger("start", context.key)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        write_ledger("canceled", context.key)
        raise


@pool.task("parent")
async def parent(agent_id: UUID, context: Job) -> int:
    children = [await ax.enqueue("add", Job(key=f"{context.key}-{n}", times=n)) for n in range(context.times)]
    return sum(child.total for child in await ax.gather(*children))


@pool.task("tick")
async def tick(agent_id: UUID, context: Any = None) -> None:
    write_ledger("start", "tick")


if os.environ.get("SCHEDULE"):
    pool.add_schedule("tick", timedelta(seconds=float(os.environ["SCHEDULE"])))


if __name__ == "__main__":
    pool.run()


@pool.task("untyped")
async def untyped(agent_id: UUID, context) -> None:
    write_ledger("end", "untyped")
