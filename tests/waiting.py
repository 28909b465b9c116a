"""Wait for conditions, never for durations."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEFAULT_TIMEOUT = 10.0
PATIENCE = float(os.environ.get("AGENTEXEC_TEST_PATIENCE", "2"))
"""Factor of every deadline, for slow machines: what comes true in time costs no more by it."""

SHORTEST, LONGEST = 0.02, 0.1
"""Seconds between two checks, longer the longer it takes: each check may be a query."""


def patient(seconds: float) -> float:
    """Return the seconds that a deadline of `seconds` has on this machine. Every deadline of a test goes through this."""
    return seconds * PATIENCE


def wait_until(condition: Callable[[], T], *, timeout: float = DEFAULT_TIMEOUT) -> T:
    """Call `condition` until it returns something true, and return that."""
    timeout = patient(timeout)
    deadline, pause = time.monotonic() + timeout, SHORTEST
    while not (outcome := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(_complaint(condition, timeout, outcome))
        time.sleep(pause)
        pause = min(pause * 1.2, LONGEST)
    return outcome


async def wait_until_async(
    condition: Callable[[], T | Awaitable[T]], *, timeout: float = DEFAULT_TIMEOUT
) -> T:
    """`wait_until` for coroutines; `condition` may itself be one or a plain function."""
    timeout = patient(timeout)
    deadline, pause = time.monotonic() + timeout, SHORTEST
    while True:
        outcome = condition()
        if inspect.isawaitable(outcome):
            outcome = await outcome
        if outcome:
            return outcome
        if time.monotonic() > deadline:
            raise AssertionError(_complaint(condition, timeout, outcome))
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, LONGEST)


def _complaint(condition: Callable[..., object], timeout: float, outcome: object) -> str:
    return f"still not true after {timeout:g} s: {_source(condition)} (last returned {outcome!r})"


def _source(condition: Callable[..., object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
