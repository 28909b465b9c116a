"""Waiting inside a task: its slot is another task's meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from agentexec.journal.recorder import Scope, current_scope
from agentexec.runtime import RUNTIME, Slots


def _place() -> tuple[Scope, Slots] | None:
    scope, slots = current_scope(), RUNTIME.slots
    return None if scope is None or slots is None else (scope, slots)


@asynccontextmanager
async def slot_released(*, in_process: bool = True) -> AsyncGenerator[None]:
    """What the block waits for takes no slot of the worker; without effect outside a worker.

    `in_process`: it waits for something that this process alone will hear of.
    """
    place = _place()
    if place is None:
        yield
        return
    scope, slots = place
    recorder = scope.recorder
    recorder.local_waits += in_process
    try:
        async with slots.released(recorder.lease.agent_id, requeue_on_stop=recorder.is_step_based):
            yield
    finally:
        recorder.local_waits -= in_process


@contextmanager
def slot_released_sync() -> Generator[None]:
    """`slot_released` for code that runs in a thread."""
    place = _place()
    if place is None:
        yield
        return
    scope, slots = place
    with slots.released_in_thread(
        scope.recorder.lease.agent_id, requeue_on_stop=scope.recorder.is_step_based
    ):
        yield
