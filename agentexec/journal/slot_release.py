"""Release of a task's slot while the task waits, so that another task can run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from agentexec.journal.recorder import Scope
from agentexec.journal.scopes import current_scope
from agentexec.runtime import RUNTIME, Slots


def _scope_and_slots() -> tuple[Scope, Slots] | None:
    """Return the running code's scope and the worker's slots; None outside a worker."""
    scope, slots = current_scope(), RUNTIME.slots
    return None if scope is None or slots is None else (scope, slots)


@asynccontextmanager
async def slot_released(*, in_process: bool = True) -> AsyncGenerator[None]:
    """Release the task's slot while the block waits; does nothing outside a worker.

    `in_process`: only this process will hear of what the block waits for, so the task must not leave its worker.
    """
    found = _scope_and_slots()
    if found is None:
        yield
        return
    scope, slots = found
    recorder = scope.recorder
    recorder.local_waits += in_process
    try:
        async with slots.released(
            recorder.lease.agent_id, requeue_on_stop=recorder.is_step_based, for_tasks=in_process
        ):
            yield
    finally:
        recorder.local_waits -= in_process


@contextmanager
def slot_released_sync() -> Generator[None]:
    """Release the task's slot while the block waits in a thread; does nothing outside a worker."""
    found = _scope_and_slots()
    if found is None:
        yield
        return
    scope, slots = found
    with slots.released_in_thread(
        scope.recorder.lease.agent_id, requeue_on_stop=scope.recorder.is_step_based, for_tasks=True
    ):
        yield
