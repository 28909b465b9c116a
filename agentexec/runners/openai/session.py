"""Sessions of a durable run: on replay a session shows its items from the start of the run, and adds none twice."""

from __future__ import annotations

import json
from typing import Any

from agents import TResponseInputItem

from agentexec.runners.openai.proxy import SdkProxy
from agentexec.runners.openai.run import DurableRun

ALL_ITEMS = 2**31 - 1
"""Limit that overrides the one in a session's own settings."""

SERVER_FIELDS = ("id", "status", "created_by", "created_at")
"""Fields that a server adds to the items that it stores."""


def journaled_session(session: Any, run: DurableRun) -> Any:
    """Return the session as a durable run must see it."""
    if isinstance(session, JournaledSession):
        return session
    return JournaledSession(session, run)


class JournaledSession(SdkProxy):
    """View of a session for one run.

    `_before` are the items that the session held when the run began. `_leftover` are those that an earlier attempt
    added since, in order. This attempt has added the first `_replayed` of them as well. Once all are replayed,
    everything goes to the session itself.
    """

    def __init__(self, session: Any, run: DurableRun) -> None:
        super().__init__(session)
        self._run = run
        self._before: list[TResponseInputItem] = []
        self._leftover: list[TResponseInputItem] | None = None
        self._replayed = 0

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items that a run without a crash would see at this point."""
        leftover = await self._begin()
        if self._replayed >= len(leftover):
            return await self._inner.get_items() if limit is None else await self._inner.get_items(limit)
        settings = getattr(self._inner, "session_settings", None)
        maximum = limit if limit is not None else getattr(settings, "limit", None)
        items = [*self._before, *leftover[: self._replayed]]
        return items if maximum is None else items[len(items) - min(maximum, len(items)) :]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add the items that an earlier attempt has not added."""
        leftover = await self._begin()
        present = matching(leftover[self._replayed :], items)
        if present == 0:
            self._skip_foreign(leftover, items)
            present = matching(leftover[self._replayed :], items)
        self._replayed += present
        if present < len(items):
            # This run did not add the remaining leftover items, so no item from here on can be among them.
            self._leftover, self._replayed = [], 0
            await self._inner.add_items(items[present:])

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove and return the last item."""
        leftover = await self._begin()
        if self._replayed >= len(leftover):
            self._leftover, self._replayed = [], 0
            return await self._inner.pop_item()
        if self._replayed:
            self._replayed -= 1
            return leftover[self._replayed]
        return self._before.pop() if self._before else None

    async def clear_session(self) -> None:
        """Remove all items."""
        self._before, self._leftover, self._replayed = [], [], 0
        await self._inner.clear_session()

    async def _begin(self) -> list[TResponseInputItem]:
        """Read or record the number of items at the run's start, once; return the leftover items."""
        if self._leftover is None:
            start = self._run.start_fact
            if start is None:
                await self._run.record_start(len(await self._all_items()))
                self._leftover = []
            else:
                count = json.loads(start.value).get("session_items")
                items = await self._all_items()
                count = len(items) if count is None else count
                self._before, self._leftover = items[:count], items[count:]
        return self._leftover

    def _skip_foreign(self, leftover: list[TResponseInputItem], items: list[TResponseInputItem]) -> None:
        """Skip items that somebody else added in between, if all of `items` follow them."""
        for start in range(self._replayed + 1, len(leftover) - len(items) + 1):
            if matching(leftover[start:], items) == len(items):
                self._replayed = start
                return

    async def _all_items(self) -> list[TResponseInputItem]:
        settings = getattr(self._inner, "session_settings", None)
        if getattr(settings, "limit", None) is not None:
            return await self._inner.get_items(ALL_ITEMS)
        return await self._inner.get_items()


def matching(stored: list[TResponseInputItem], items: list[TResponseInputItem]) -> int:
    """Return how many of the first items are, in order, the first stored ones."""
    count = 0
    for stored_item, item in zip(stored, items, strict=False):
        if canonical_form(stored_item) != canonical_form(item):
            break
        count += 1
    return count


def canonical_form(item: Any) -> str:
    """Return an item without what servers add or leave out, so that two forms of the same item are equal."""
    return json.dumps(_reduced(item), sort_keys=True, default=str)


def _reduced(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("type") in ("input_text", "output_text", "text"):
            return value.get("text")
        return _reduced_fields(value)
    if isinstance(value, list):
        parts = [_reduced(part) for part in value]
        return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts
    return value


def _reduced_fields(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item without server fields, empty fields, and the type of a message, which servers may leave out."""
    kept = {
        key: _reduced(part)
        for key, part in item.items()
        if key not in SERVER_FIELDS and part not in (None, [], {})
    }
    if "role" in kept and kept.get("type", "message") == "message":
        kept.pop("type", None)
    return kept


__all__ = ["JournaledSession", "journaled_session"]
