"""Errors of user code that coroutines and futures cannot pass on: they become errors that can be passed on.

Python does the same with StopIteration in a coroutine: it becomes a RuntimeError.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

GUARD_MARK = "_agentexec_guards_threads"


def guard_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Let every function that an event loop runs in a thread or process end, also with StopIteration.

    Before Python 3.13 a future refuses StopIteration, so the caller of `next()` on an empty iterator would wait forever.
    The loop's method is replaced because users and SDKs call it too, by `asyncio.to_thread` for one.
    """
    if getattr(loop, GUARD_MARK, False):
        return
    run_in_executor = loop.run_in_executor

    def run_guarded(executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return run_in_executor(executor, functools.partial(_call, func, *args))

    setattr(loop, GUARD_MARK, True)
    loop.run_in_executor = run_guarded


def _call(func: Callable[..., Any], *args: Any) -> Any:
    try:
        return func(*args)
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"a function in a thread raised {type(error).__name__}") from error


async def contain_generator_exit(awaitable: Awaitable[T]) -> T:
    """Await user code. If it ends with GeneratorExit, raise a RuntimeError instead.

    Python takes a GeneratorExit that a future or task passes on for the end of all coroutines that wait for it: they
    could neither await anything nor return a value.
    """
    strand = asyncio.current_task()
    try:
        return await awaitable
    except GeneratorExit as error:
        if not _is_running(strand):
            raise
        raise RuntimeError("the code raised GeneratorExit") from error


def _is_running(strand: asyncio.Task[Any] | None) -> bool:
    """Return True if this code runs as a step of an asyncio task. A coroutine that is closed from outside does not."""
    try:
        return strand is not None and asyncio.current_task() is strand
    except RuntimeError:
        return False
