"""Running a coroutine of agentexec in code without an event loop, inside a task or outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from agentexec.errors import UsageError

T = TypeVar("T")


def run_blocking(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that `start` returns in an event loop of its own, and return its result.

    The coroutine runs in a copy of the caller's context, so it belongs to the same task as the caller. Raises
    UsageError where an event loop runs already: it would stand still.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(start())
    raise UsageError(
        "A function that ends in _sync blocks the event loop that runs here; await the function without _sync."
    )
