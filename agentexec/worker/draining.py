"""Draining: the orderly stop of a worker process."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable

from agentexec.worker.running import RunningTasks
from agentexec.worker.slots import Slots

log = logging.getLogger("agentexec.worker")

REQUEUE_INTERVAL = 0.2
"""Seconds between two looks, during a drain, for tasks that have begun to wait."""

GRACE_AFTER_CANCEL = 5.0
"""Seconds that canceled handlers get to clean up."""


class Drain:
    """Stops a worker process in order: running tasks get a grace period, then they are handed back.

    Threads: only the event loop's thread calls it. `draining` tells the other threads; they only read it.
    """

    def __init__(
        self,
        running: RunningTasks,
        slots: Slots,
        draining: threading.Event,
        grace: float,
        *,
        on_progress: Callable[[], object] = lambda: None,
    ) -> None:
        """Drain with `grace` seconds for running tasks. `on_progress` is called when tasks may have ended."""
        self._on_progress = on_progress
        self._running = running
        self._slots = slots
        self._draining = draining
        self._grace = grace
        self._deadline = math.inf
        self._requested = asyncio.Event()
        self._immediate = asyncio.Event()

    def request(self) -> None:
        """Begin to drain, or limit a drain that had no limit."""
        if self._deadline == math.inf:
            self._deadline = asyncio.get_running_loop().time() + self._grace
            self.retire()

    def retire(self) -> None:
        """Begin to drain, with any time for running tasks: another process takes the place of this one."""
        self.announce()
        self._requested.set()

    def announce(self) -> None:
        """Let nothing new start. Unlike the rest, it needs no event loop."""
        self._draining.set()
        self._running.draining = True
        self._on_progress()
        self._slots.notify()

    def request_now(self) -> None:
        """Drain without the grace period."""
        self.request()
        self._immediate.set()

    async def wait_for_request(self) -> None:
        """Return when the process is to drain."""
        await self._requested.wait()

    async def finish_running(self) -> None:
        """Wait for running tasks, then cancel the rest and hand them back."""
        if self._running.count:
            limit = "" if self._deadline == math.inf else f" up to {self._grace:g} s"
            log.info("Draining: waiting%s for %d running task(s).", limit, self._running.count)
        await self._wait_for_running()
        if self._running.count:
            log.info("Handing %d unfinished task(s) back to the queue.", self._running.count)
            self._running.cancel()
            await self._running.wait(GRACE_AFTER_CANCEL, return_when=asyncio.ALL_COMPLETED)
        # Handlers that did not react (plain functions in threads) are handed back all the same; the process ends now.
        self._running.hand_back()

    async def _wait_for_running(self) -> None:
        loop = asyncio.get_running_loop()
        immediate = asyncio.ensure_future(self._immediate.wait())
        while self._running.count and not immediate.done() and (left := self._deadline - loop.time()) > 0:
            self._on_progress()
            # A task that waits for others may do so outside this process.
            self._running.cancel(self._slots.requeueable_tasks)
            await self._running.wait(min(REQUEUE_INTERVAL, left), until=immediate)
        immediate.cancel()
        self._on_progress()
