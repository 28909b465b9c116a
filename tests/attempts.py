"""Attempts of one task in this process: the handler runs again from its top, as after a crash of its worker."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.journal.models import JournalEntry
from agentexec.journal.recorder import enter_task
from agentexec.runtime import RUNTIME
from agentexec.task import Lease

T = TypeVar("T")


class ReplayableTask:
    """A task in the database; `attempt` runs a handler under its next epoch."""

    def __init__(self) -> None:
        self.agent_id: UUID = ax.activity.create("research")
        self.epoch = 0

    async def attempt(self, handler: Callable[[], Awaitable[T]]) -> T:
        self.take_over()
        return await self.run_at_epoch(handler, self.epoch)

    def take_over(self) -> None:
        """Make the task RUNNING under the next epoch, as the admission by a new worker does."""
        self.epoch += 1
        with RUNTIME.engine.begin() as connection:
            connection.execute(
                update(Activity)
                .where(Activity.agent_id == self.agent_id)
                .values(status=ax.Status.RUNNING, epoch=self.epoch)
            )

    async def run_at_epoch(self, handler: Callable[[], Awaitable[T]], epoch: int) -> T:
        """Run a handler under an epoch, whatever epoch the task has."""

        async def run() -> T:
            enter_task(Lease(self.agent_id, epoch), epoch)
            return await handler()

        return await asyncio.create_task(run(), context=contextvars.copy_context())

    def journal(self) -> list[tuple[str, int, str]]:
        """Return path, seq and kind of every row, in the order in which they were written."""
        query = (
            select(JournalEntry)
            .where(JournalEntry.agent_id == self.agent_id)
            .order_by(JournalEntry.created_at, JournalEntry.path, JournalEntry.seq)
        )
        with Session(RUNTIME.engine) as db:
            return [(row.path, row.seq, row.kind) for row in db.scalars(query)]

    def delete_entries(self, keys: Sequence[tuple[str, int]]) -> None:
        """Remove rows, as if the worker had crashed before it wrote them."""
        with RUNTIME.engine.begin() as connection:
            for path, seq in keys:
                connection.execute(
                    delete(JournalEntry).where(
                        JournalEntry.agent_id == self.agent_id,
                        JournalEntry.path == path,
                        JournalEntry.seq == seq,
                    )
                )

    def detail(self) -> Any:
        with Session(RUNTIME.engine) as db:
            return ax.activity.detail(db, agent_id=self.agent_id)

    def messages(self) -> list[str]:
        return [line.message for line in self.detail().logs][1:]
