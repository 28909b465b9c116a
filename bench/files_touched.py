"""`python -m bench.files_touched`: files of agentexec that one warm task runs through, from enqueue to get_result.

Counts the distinct files of `agentexec/` in which at least one function is called, in the process that enqueues and waits
and in the worker process together, all threads included. The tasks run on SQLite, one after another; a task does nothing.
Prints the files of the median task, with the processes that call into them. Exit code 1 if they are more than `--goal`.

The figures come from `sys.setprofile` in both processes. They share a clock, so the worker keeps every call with its moment,
and a second task returns those between the enqueue of the first one and its result.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax
from bench.targets import opened
from bench.workers import Workers

GOAL = 20
WARM_TASKS = 20
PACKAGE = str(Path(ax.__file__).parent) + os.sep
IN_WORKER = "BENCH_FILES_TOUCHED"
"""Environment variable that makes a worker note its calls."""

_calls: list[tuple[int, str]] = []

pool = ax.Pool()


class Window(BaseModel):
    """Two moments in nanoseconds of the monotonic clock."""

    start: int = 0
    end: int = 0


@pool.task("nothing")
async def nothing(*, agent_id: UUID, context: Window) -> None:
    """Do nothing, so that only agentexec is counted."""


@pool.task("touched")
async def touched(*, agent_id: UUID, context: Window) -> list[str]:
    """Return the files that this process called into within the window."""
    return sorted(touched_here(context))


def touched_here(window: Window) -> set[str]:
    return {file for moment, file in _calls if window.start <= moment <= window.end}


def note_calls() -> None:
    """Note every call of this thread and of threads that start from now on."""
    sys.setprofile(_note)
    threading.setprofile(_note)


def _note(frame: FrameType, event: str, _argument: object) -> None:
    file = frame.f_code.co_filename
    if event == "call" and file.startswith(PACKAGE) and frame.f_code.co_name != "<module>":
        _calls.append((time.monotonic_ns(), file.removeprefix(PACKAGE)))


def measure(tasks: int) -> list[dict[str, list[str]]]:
    """Return, for each of several tasks, the files touched by each kind of process."""
    found = []
    os.environ[IN_WORKER] = "1"
    try:
        with opened("embedded") as target, Workers(target, processes=1, module=Path(__file__)):
            note_calls()
            try:
                for _ in range(WARM_TASKS):
                    _run_one()
                for _ in range(tasks):
                    _calls.clear()
                    window = _run_one()
                    here = sorted(touched_here(window))
                    worker = ax.get_result_sync(ax.enqueue_sync("touched", window), timeout=30)
                    found.append({"caller": here, "worker": worker})
            finally:
                threading.setprofile(None)
                sys.setprofile(None)
    finally:
        del os.environ[IN_WORKER]
    return found


def _run_one() -> Window:
    start = time.monotonic_ns()
    ax.get_result_sync(ax.enqueue_sync("nothing", Window()), timeout=30)
    return Window(start=start, end=time.monotonic_ns())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.files_touched", description="Count files per task."
    )
    parser.add_argument("--goal", type=int, default=GOAL, help="highest number that passes")
    parser.add_argument("--tasks", type=int, default=9, help="tasks to measure after the warm-up")
    options = parser.parse_args(arguments)
    found = sorted(measure(options.tasks), key=count)
    median = found[len(found) // 2]
    for file in sorted({*median["caller"], *median["worker"]}):
        print(f"  {file:45} {' '.join(side for side, touched in median.items() if file in touched)}")
    print(
        f"{count(median)} files ({len(median['caller'])} in the caller, {len(median['worker'])} in the worker); "
        f"{len(found)} tasks touched {count(found[0])} to {count(found[-1])}; goal: at most {options.goal}"
    )
    return 0 if count(median) <= options.goal else 1


def count(sides: dict[str, list[str]]) -> int:
    """Return the number of distinct files that the processes touched together."""
    return len({*sides["caller"], *sides["worker"]})


if os.environ.get(IN_WORKER) and __name__ != "__main__":
    os.register_at_fork(after_in_child=note_calls)


if __name__ == "__main__":
    sys.exit(main())
