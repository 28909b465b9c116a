"""Time that a test moves ahead: what is due on the way happens at its moment, as the processes of a worker would do it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Engine, func, select

from agentexec.activity.models import Activity
from agentexec.db.clock import CLOCK, utc_now
from agentexec.db.transactions import reading
from agentexec.errors import UsageError
from agentexec.journal.models import Approval
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.schedules.record import find_schedules
from agentexec.testing.inline import InlineWorker
from agentexec.worker.expiry import expire
from agentexec.worker.scheduler import Scheduler
from agentexec.worker.task_expiry import TaskExpiry

T = TypeVar("T")

MAX_STOPS = 10_000
"""Moments at which something is due in one call, such as the ticks of a schedule."""

MOMENT = 0.001
"""Seconds by which a stop is later than what is due, so that it is due for every clock."""


class TimeTravel:
    """Moves agentexec's clock ahead from moment to moment, and does what is due at each."""

    def __init__(self, worker: InlineWorker, engine: Engine, registry: Registry) -> None:
        self._worker = worker
        self._engine = engine
        self._registry = registry
        self._scheduler = Scheduler(engine, registry, worker.queue)
        self._expiry = TaskExpiry(RUNTIME)

    def close(self) -> None:
        """Set the clock right again."""
        CLOCK.ahead = timedelta()

    async def advance(self, seconds: float, read: Callable[[UUID], T]) -> list[T]:
        """Move ahead by these seconds; return what `read` finds of each task that ran, right after it ran."""
        if not 0 <= seconds < float("inf"):
            raise UsageError(f"Time moves ahead only: advance takes at least 0 seconds, and got {seconds}.")
        ran: list[T] = []
        end = CLOCK.ahead + timedelta(seconds=seconds)
        for _ in range(MAX_STOPS):
            # The duties first: a task that has expired must not start.
            await RUNTIME.run_in_thread(self._do_what_is_due)
            ran += [read(agent_id) for agent_id in await self._worker.work_until_now()]
            upcoming = await RUNTIME.run_in_thread(self._next_due)
            left = end - CLOCK.ahead
            if not left and (upcoming is None or upcoming > timedelta()):
                await RUNTIME.run_in_thread(expire, self._engine, utc_now())
                return ran
            step = left if upcoming is None else max(timedelta(), upcoming) + timedelta(seconds=MOMENT)
            CLOCK.ahead += min(left, step)
        raise UsageError(f"More than {MAX_STOPS:,} things are due in that time; advance in smaller steps.")

    def _do_what_is_due(self) -> None:
        while self._registry.schedules and self._scheduler.run_once(utc_now()) < MOMENT:
            pass
        self._expiry.run_once()

    def _next_due(self) -> timedelta | None:
        """Return the time until the next moment at which something is due; None if nothing is."""
        now = utc_now()
        moments: list[datetime | None] = [
            schedule.next_at for schedule in find_schedules(self._engine) if schedule.paused_at is None
        ]
        with reading(self._engine) as connection:
            for column in (Activity.expires_at, Approval.notice_at):
                moments.append(connection.execute(select(func.min(column))).scalar())
        waits = [moment - now for moment in moments if moment is not None]
        delayed = self._worker.next_due()
        if delayed is not None:
            waits.append(timedelta(seconds=delayed))
        return min(waits, default=None)
