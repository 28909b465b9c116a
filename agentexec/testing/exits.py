"""Exits in handlers under test: SystemExit and KeyboardInterrupt fail a task, and do not end the test's event loop."""

from __future__ import annotations

import asyncio
from asyncio import tasks
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from agentexec.task import CURRENT_LEASE


class HandlerTask(tasks._PyTask):  # ty: ignore[missing-attribute]
    """Asyncio task that keeps an exit as its error. Others also raise it out of the event loop, which is the test's."""

    def _Task__step(self, exc: BaseException | None = None) -> None:  # noqa: N802 - the name of the method that it extends
        with suppress(SystemExit, KeyboardInterrupt):
            super()._Task__step(exc)


@contextmanager
def exits_contained(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Inside the block, make the tasks that handlers start on an event loop `HandlerTask`s."""
    before = loop.get_task_factory()

    def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if CURRENT_LEASE.get() is not None:
            return HandlerTask(coroutine, loop=loop, **options)
        return before(loop, coroutine, **options) if before else asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make_task)
    try:
        yield
    finally:
        loop.set_task_factory(before)
