"""Tasks that fork, start programs, and throw dice."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax

pool = ax.Pool()
fork = multiprocessing.get_context("fork")

DICE = random.Random()
FIXED_DICE = random.Random(7)

SIGNALS_OF_A_PROGRAM = f"""
for line in open("/proc/self/status"):
    if line.startswith("SigIgn"):
        mask = int(line.split()[1], 16)
        print([name for name, number in {[(s.name, int(s)) for s in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)]} if mask >> number - 1 & 1])
"""


def sleep_long() -> None:
    time.sleep(600)


def square(number: int) -> int:
    return number * number


def report_and_enqueue(agent_id: UUID) -> None:
    ax.activity.update(agent_id, "A child reports.", 40)
    assert ax.get_result_sync(ax.enqueue_sync("echo", {"what": "child"}), 20) == "child"


def end_of_helper() -> int | None:
    helper = fork.Process(target=sleep_long)
    helper.start()
    helper.terminate()
    helper.join()
    return helper.exitcode


# A spawned child loads the module again, and must not start processes while it does.
HELPER_EXIT = end_of_helper() if multiprocessing.parent_process() is None else None


class Case(BaseModel):
    what: str


def terminate() -> list[int | None]:
    """Terminate children at once, and one that had the time to begin."""
    exit_codes = []
    for wait in (0.0, 0.0, 0.0, 0.0, 0.3):
        child = fork.Process(target=sleep_long)
        child.start()
        time.sleep(wait)
        child.terminate()
        child.join(10)
        exit_codes.append(child.exitcode)
    return exit_codes


def interrupt() -> int | None:
    child = fork.Process(target=sleep_long)
    child.start()
    time.sleep(0.3)
    os.kill(child.pid or 0, signal.SIGINT)
    child.join(10)
    return child.exitcode


def pools() -> list[list[int]]:
    with fork.Pool(2) as workers:
        mapped = workers.map(square, range(3))
    with ProcessPoolExecutor(2, mp_context=fork) as executor:
        submitted = list(executor.map(square, range(3)))
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        spawned = workers.map(square, range(3))
    return [mapped, submitted, spawned]


def returns_from_fork() -> tuple[str, int]:
    """Fork, and let both processes return, as a program that forgets `os._exit`."""
    pid = os.fork()
    return ("parent", pid) if pid else ("child", 0)


def wait_for_exit(pid: int) -> int | str:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "it was still running"


def returned(ending: str) -> int | str:
    side, pid = returns_from_fork()
    if side == "child":
        if ending == "raises":
            raise ValueError("in the child")
        if ending == "exits":
            sys.exit(3)
        return 0
    return wait_for_exit(pid)


def run_case(agent_id: UUID, what: str) -> Any:
    if what == "terminate":
        return terminate()
    if what == "interrupt":
        return interrupt()
    if what == "pools":
        return pools()
    if what == "program":
        return subprocess.check_output([sys.executable, "-c", SIGNALS_OF_A_PROGRAM], text=True)
    if what == "report":
        child = fork.Process(target=report_and_enqueue, args=(agent_id,))
        child.start()
        child.join(30)
        return child.exitcode
    if what == "helper":
        return HELPER_EXIT
    if what == "leave children":
        children = [fork.Process(target=sleep_long, daemon=daemon) for daemon in (True, False)]
        for child in children:
            child.start()
        return [child.pid for child in children]
    return returned(what)


@pool.task("plain")
def plain(agent_id: UUID, context: Case) -> Any:
    return run_case(agent_id, context.what)


@pool.task("coroutine")
async def coroutine(agent_id: UUID, context: Case) -> Any:
    if context.what == "program":
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SIGNALS_OF_A_PROGRAM, stdout=subprocess.PIPE
        )
        return (await program.communicate())[0].decode()
    if context.what == "awaits":
        side, pid = returns_from_fork()
        if side == "child":
            await asyncio.sleep(0)
            await asyncio.sleep(600)
        return await asyncio.to_thread(wait_for_exit, pid)
    return run_case(agent_id, context.what)


@pool.task("echo")
async def echo(agent_id: UUID, context: Case) -> str:
    return context.what


@pool.task("throw")
def throw(agent_id: UUID, context: Case) -> list[float]:
    """Hold this worker until another one throws as well."""
    folder = Path(os.environ["LEDGER"]).parent
    (folder / f"throws-{os.getpid()}").touch()
    deadline = time.monotonic() + 20
    while len(list(folder.glob("throws-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return [DICE.random(), random.random(), FIXED_DICE.random()]
