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
async def at_rest(*, watching: bool = True) -> AsyncGenerator[None]:
    """What the block waits for takes no slot of the worker; without effect outside a worker.

    `watching`: it waits for something that this process alone will hear of.
    """
    place = _place()
    if place is None:
        yield
        return
    scope, slots = place
    recorder = scope.recorder
    recorder.watching += watching
    try:
        async with slots.resting(recorder.lease.agent_id, leaves=recorder.in_steps):
            yield
    finally:
        recorder.watching -= watching


@contextmanager
def thread_at_rest() -> Generator[None]:
    """`at_rest` for code that runs in a thread."""
    place = _place()
    if place is None:
        yield
        return
    scope, slots = place
    with slots.resting_thread(scope.recorder.lease.agent_id, leaves=scope.recorder.in_steps):
        yield
