"""A conversation's session as a durable run sees it: as it was when the run began, with what the run has added since."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from agents import TResponseInputItem

from agentexec.conversations.history import Adder, add_items, discard_items, last_change, remove_items
from agentexec.conversations.session import Session, part_of
from agentexec.runtime import RUNTIME

if TYPE_CHECKING:
    from agentexec.runners.openai.run import DurableRun


class Entry(NamedTuple):
    """An item that the run sees: one with a number was there when the run began, one with a place is the run's own."""

    item: TResponseInputItem
    number: int | None = None
    place: str | None = None


class TurnSession:
    """View of an `ax.Session` for one run.

    The run's start in the journal has the number of the history's latest change. What the run adds has places of its own,
    so it is written once in all attempts, without comparing contents. A fork changes nothing.
    """

    session_settings: Any = None

    def __init__(self, session: Session, run: DurableRun) -> None:
        self.session_id = session.session_id
        self._session = session
        self._run = run
        self._adder = Adder(
            run.recorder.lease, part_of(f"{run.path}/session:{session.session_id}"), run.recorder.repeats
        )
        self._added = 0
        self._start: int | None = None
        self._entries: list[Entry] = []

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items that a run without a crash would see at this point."""
        await self._begin()
        entries = self._entries if limit is None else self._entries[max(len(self._entries) - limit, 0) :]
        return [entry.item for entry in entries]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add the items that no earlier attempt has added."""
        await self._begin()
        if not items:
            return
        first = self._added + 1
        self._added += len(items)
        await self._change(add_items, RUNTIME.engine, self.session_id, items, self._adder, first)
        self._entries += [Entry(item, place=self._adder.place(first + n)) for n, item in enumerate(items)]

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove and return the last item."""
        await self._begin()
        if not self._entries:
            return None
        last = self._entries.pop()
        await self._remove([last])
        return last.item

    async def clear_session(self) -> None:
        """Remove all items."""
        await self._begin()
        entries, self._entries = self._entries, []
        await self._remove(entries, all_up_to=self._start)

    async def _begin(self) -> None:
        """Read the history at the run's start, which is recorded if it is the first time."""
        if self._start is not None:
            return
        run = self._run
        if run.start_fact is None:
            if self._adder.repeats:
                # An earlier attempt has begun, and its records were dropped since.
                await self._change(discard_items, RUNTIME.engine, self.session_id, self._adder)
            now = await run.recorder.write_with_retry(last_change, RUNTIME.engine, self.session_id)
            await run.record_start(now)
        fact = run.start_fact
        recorded = json.loads(fact.value).get("session_items") if fact is not None else None
        self._start = recorded or 0
        stored = await run.recorder.write_with_retry(self._session.read, None, self._start)
        self._entries = [Entry(found.item, number=found.number) for found in stored]

    async def _remove(self, entries: list[Entry], all_up_to: int | None = None) -> None:
        numbers = [entry.number for entry in entries if entry.number is not None]
        places = [entry.place for entry in entries if entry.place is not None]

        def remove() -> None:
            remove_items(
                RUNTIME.engine,
                self.session_id,
                numbers=numbers if all_up_to is None else (),
                places=places,
                all_up_to=all_up_to,
                lease=self._run.recorder.lease,
            )

        await self._change(remove)

    async def _change(self, call: Any, *arguments: Any) -> None:
        if self._run.is_fork:
            return
        await self._run.recorder.confirm_lease()
        await self._run.recorder.write_with_retry(call, *arguments)
