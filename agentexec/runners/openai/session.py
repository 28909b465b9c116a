"""Sessions of a durable run: on replay a session shows what it held when the run began, and takes nothing twice."""

from __future__ import annotations

import json
from typing import Any

from agents import TResponseInputItem

from agentexec.runners.openai.run import DurableRun

ALL_ITEMS = 2**31 - 1
"""A limit for sessions whose own settings would cut their answer short."""

SERVERS_OWN = ("id", "status", "created_by", "created_at")
"""Fields that a server adds to an item that it stores."""


def journaled_session(session: Any, run: DurableRun) -> Any:
    """The session as a durable run is to see it."""
    if isinstance(session, JournaledSession):
        return session
    return JournaledSession(session, run)


class JournaledSession:
    """A session of any kind, seen by one run.

    `_before` is what it held at the run's beginning; `_left` what a dead attempt added since, in order; the first
    `_taken` of those this attempt has added as well. Once all are taken, everything goes to the session itself.
    To `isinstance` and for every other attribute it is the session: the SDK asks for kinds of sessions.
    """

    def __init__(self, session: Any, run: DurableRun) -> None:
        self._session = session
        self._run = run
        self._before: list[TResponseInputItem] = []
        self._left: list[TResponseInputItem] | None = None
        self._taken = 0

    @property
    def __class__(self) -> Any:
        return type(self._session)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """What an uncrashed run would see at this point."""
        left = await self._begin()
        if self._taken >= len(left):
            return await self._session.get_items() if limit is None else await self._session.get_items(limit)
        settings = getattr(self._session, "session_settings", None)
        most = limit if limit is not None else getattr(settings, "limit", None)
        items = [*self._before, *left[: self._taken]]
        return items if most is None else items[len(items) - min(most, len(items)) :]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add what is not there yet."""
        left = await self._begin()
        known = matching(left[self._taken :], items)
        if known == 0:
            self._skip_foreign(left, items)
            known = matching(left[self._taken :], items)
        self._taken += known
        if known < len(items):
            # Nothing of what comes now can be in there: what is left is not this run's.
            self._left, self._taken = [], 0
            await self._session.add_items(items[known:])

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item back."""
        left = await self._begin()
        if self._taken >= len(left):
            self._left, self._taken = [], 0
            return await self._session.pop_item()
        if self._taken:
            self._taken -= 1
            return left[self._taken]
        return self._before.pop() if self._before else None

    async def clear_session(self) -> None:
        """Remove everything."""
        self._before, self._left, self._taken = [], [], 0
        await self._session.clear_session()

    async def _begin(self) -> list[TResponseInputItem]:
        if self._left is None:
            began = self._run.start_fact
            if began is None:
                held = len(await self._all())
                await self._run.record_start(held)
                self._left = []
            else:
                held = json.loads(began.value).get("session_items")
                items = await self._all()
                held = len(items) if held is None else held
                self._before, self._left = items[:held], items[held:]
        return self._left

    def _skip_foreign(self, left: list[TResponseInputItem], items: list[TResponseInputItem]) -> None:
        """Pass over what somebody else put in between, if all of the items stand behind it."""
        for start in range(self._taken + 1, len(left) - len(items) + 1):
            if matching(left[start:], items) == len(items):
                self._taken = start
                return

    async def _all(self) -> list[TResponseInputItem]:
        settings = getattr(self._session, "session_settings", None)
        if getattr(settings, "limit", None) is not None:
            return await self._session.get_items(ALL_ITEMS)
        return await self._session.get_items()


def matching(stored: list[TResponseInputItem], items: list[TResponseInputItem]) -> int:
    """How many of the first items stand at the beginning of what is stored."""
    number = 0
    for one, other in zip(stored, items, strict=False):
        if canonical_form(one) != canonical_form(other):
            break
        number += 1
    return number


def canonical_form(item: Any) -> str:
    """An item without what servers add to it or leave out, so that two forms of one item are equal."""
    return json.dumps(_reduced(item), sort_keys=True, default=str)


def _reduced(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("type") in ("input_text", "output_text", "text"):
            return value.get("text")
        kept = {
            key: _reduced(part)
            for key, part in value.items()
            if key not in SERVERS_OWN and part not in (None, [], {})
        }
        if "role" in kept and kept.get("type", "message") == "message":
            kept.pop("type", None)
        return kept
    if isinstance(value, list):
        parts = [_reduced(part) for part in value]
        return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts
    return value


__all__ = ["JournaledSession", "journaled_session"]
