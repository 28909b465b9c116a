"""Sessions of a durable run: on replay a session shows its items from the start of the run, and adds none twice."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any

from agents import TResponseInputItem

try:
    from agents.memory.session import _session_accepts_wrapper
except ImportError:  # Releases before context-aware sessions.
    _session_accepts_wrapper = None

from agentexec.conversations.session import Session
from agentexec.runners.openai.proxy import SdkProxy
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.openai.session_overlap import warn_of_overlap
from agentexec.runners.openai.steering import Steering
from agentexec.runners.openai.turn_session import TurnSession

ALL_ITEMS = 2**31 - 1
"""Limit that overrides the one in a session's own settings."""

TAIL = "session_tail"
"""Field of a run's start with what the session ended in, if the run does not read all of it."""

TAIL_ITEMS = 8
"""Number of items that are read at least, to find the place again."""

MAX_TAIL_ITEMS = 64
"""Number of items that are recorded at most."""

SERVER_FIELDS = ("id", "status", "created_by", "created_at")
"""Fields that a server adds to the items that it stores."""


def journaled_session(session: Any, run: DurableRun) -> Any:
    """Return the session as a durable run must see it."""
    if isinstance(session, (JournaledSession, TurnSession)):
        return session
    if isinstance(session, Session):
        turn_session = TurnSession(session, run)
        run.steering = Steering(run, turn_session)
        return turn_session
    # The SDK reads from the methods' signatures whether a session wants to know the run's context.
    aware = _session_accepts_wrapper is not None and _session_accepts_wrapper(session)
    return (ContextAwareJournaledSession if aware else JournaledSession)(session, run)


class SessionCopy(SdkProxy):
    """Copy of a session in memory, which a fork works with. Each attempt makes its own."""

    def __init__(self, session: Any, items: list[TResponseInputItem]) -> None:
        super().__init__(session)
        self._items = [*items]

    async def get_items(self, limit: int | None = None, **_options: Any) -> list[TResponseInputItem]:
        """Return the last items."""
        return self._items[max(len(self._items) - limit, 0) :] if limit is not None else [*self._items]

    async def add_items(self, items: list[TResponseInputItem], **_options: Any) -> None:
        """Add items to the copy."""
        self._items += items

    async def pop_item(self, **_options: Any) -> TResponseInputItem | None:
        """Remove and return the last item."""
        return self._items.pop() if self._items else None

    async def clear_session(self, **_options: Any) -> None:
        """Remove all items of the copy."""
        self._items.clear()


class JournaledSession(SdkProxy):
    """View of a session for one run.

    `_before` are the items that the session held when the run began, or the last of them if the run reads no more.
    `_leftover` are those that an earlier attempt added since, in order. This attempt has added the first `_replayed`
    of them as well. Once all are replayed, everything goes to the session itself.
    """

    def __init__(self, session: Any, run: DurableRun) -> None:
        super().__init__(session)
        self._run = run
        self._before: list[TResponseInputItem] = []
        self._leftover: list[TResponseInputItem] | None = None
        self._replayed = 0

    async def get_items(self, limit: int | None = None, **options: Any) -> list[TResponseInputItem]:
        """Return the items that a run without a crash would see at this point."""
        maximum = self._effective(limit)
        if self._leftover is None:
            await self._begin(maximum, options)
            items = [*self._before]
        elif self._replayed >= len(self._leftover):
            return await self._read(limit, options)
        else:
            items = [*self._before, *self._leftover[: self._replayed]]
        return items if maximum is None else items[max(len(items) - maximum, 0) :]

    async def add_items(self, items: list[TResponseInputItem], **options: Any) -> None:
        """Add the items that an earlier attempt has not added."""
        leftover = await self._begin(self._effective(None), options)
        self._run.session_added += len(items)
        present = matching(leftover[self._replayed :], items)
        if present == 0:
            self._skip_foreign(leftover, items)
            present = matching(leftover[self._replayed :], items)
        self._replayed += present
        if present < len(items):
            # This run did not add the remaining leftover items, so no item from here on can be among them.
            self._leftover, self._replayed = [], 0
            await self._run.recorder.confirm_lease()
            await _result(self._inner.add_items(items[present:], **options))

    async def pop_item(self, **options: Any) -> TResponseInputItem | None:
        """Remove and return the last item."""
        leftover = await self._begin(self._effective(None), options)
        self._run.session_added = max(self._run.session_added - 1, 0)
        if self._replayed >= len(leftover):
            self._leftover, self._replayed = [], 0
            await self._run.recorder.confirm_lease()
            return await _result(self._inner.pop_item(**options))
        if self._replayed:
            self._replayed -= 1
            return leftover[self._replayed]
        return self._before.pop() if self._before else None

    async def clear_session(self, **options: Any) -> None:
        """Remove all items."""
        self._before, self._leftover, self._replayed, self._run.session_added = [], [], 0, 0
        await self._run.recorder.confirm_lease()
        await _result(self._inner.clear_session(**options))

    async def _begin(self, maximum: int | None, options: dict[str, Any]) -> list[TResponseInputItem]:
        """Find or record the session's end at the run's start, once; return the leftover items.

        `maximum` is the number of items that the run reads; None reads all.
        """
        if self._leftover is not None:
            return self._leftover
        start = self._run.start_fact
        if self._run.is_fork:
            return await self._begin_fork(options)
        await warn_of_overlap(self._inner, self._run.recorder)
        recorded = json.loads(start.value) if start is not None else {}
        if TAIL in recorded:
            items, end = await self._find_tail(recorded[TAIL], options)
            self._before, self._leftover = items[:end], items[end:]
        elif recorded.get("session_items") is not None:
            items, end = await self._read(ALL_ITEMS, options), recorded["session_items"]
            self._before, self._leftover = items[:end], items[end:]
        else:
            self._before, self._leftover = await self._read_start(maximum, options), []
            whole = maximum is None or len(self._before) < max(maximum, TAIL_ITEMS)
            tail = None if whole else [_identity(item) for item in self._before[-MAX_TAIL_ITEMS:]]
            if start is None:
                await self._run.record_start(len(self._before) if whole else None, tail)
        return self._leftover

    async def _begin_fork(self, options: dict[str, Any]) -> list[TResponseInputItem]:
        """Use a copy of the session as it was when the run started, because it belongs to the task forked from."""
        copies, name = self._run.recorder.session_copies, str(getattr(self._inner, "session_id", ""))
        if name not in copies:
            start = self._run.start_fact
            recorded = json.loads(start.value) if start is not None else {}
            if TAIL in recorded:
                items, end = await self._find_tail(recorded[TAIL], options)
            else:
                items, end = await self._read(ALL_ITEMS, options), recorded.get("session_items")
            copies[name] = SessionCopy(self._inner, items[:end])
        self._inner = copies[name]
        self._before, self._leftover = await self._inner.get_items(), []
        await self._run.record_start(len(self._before))
        return self._leftover

    async def _read_start(self, maximum: int | None, options: dict[str, Any]) -> list[TResponseInputItem]:
        """Read what the run reads, and enough to find the place again."""
        return await self._read(None if maximum is None else max(maximum, TAIL_ITEMS), options)

    async def _find_tail(
        self, tail: list[str], options: dict[str, Any]
    ) -> tuple[list[TResponseInputItem], int]:
        """Return the session's last items, and the index at which those end that it held when the run began.

        A history may repeat itself. The place is then the last one after which there are as many items as the run is
        known to have added.
        """
        added = self._run.recorded_session_items()
        count = len(tail) + added + TAIL_ITEMS
        while True:
            items = await self._read(count, options)
            names = [_identity(item) for item in items]
            ends = [end for end in range(len(tail), len(items) + 1) if names[end - len(tail) : end] == tail]
            if ends or len(items) < count:
                before = [end for end in ends if len(items) - end >= added]
                return items, max(before) if before else min(ends, default=len(items))
            count *= 4

    def _effective(self, limit: int | None) -> int | None:
        """Return the limit of a read, which is the session's own unless another is given."""
        settings = getattr(self._inner, "session_settings", None)
        own = settings.get("limit") if isinstance(settings, dict) else getattr(settings, "limit", None)
        return own if limit is None else limit

    async def _read(self, limit: int | None, options: dict[str, Any]) -> list[TResponseInputItem]:
        if limit == ALL_ITEMS and self._effective(None) is None:
            limit = None
        limits = {} if limit is None else {"limit": limit}
        return await _result(self._inner.get_items(**limits, **options))

    def _skip_foreign(self, leftover: list[TResponseInputItem], items: list[TResponseInputItem]) -> None:
        """Skip items that somebody else added in between, if all of `items` follow them."""
        for start in range(self._replayed + 1, len(leftover) - len(items) + 1):
            if matching(leftover[start:], items) == len(items):
                self._replayed = start
                return


class ContextAwareJournaledSession(JournaledSession):
    """View of a session whose methods take the run's context, by which it chooses a tenant, say."""

    async def get_items(self, limit: int | None = None, *, wrapper: Any = None) -> list[TResponseInputItem]:  # ty: ignore[incompatible-method-override]
        return await super().get_items(limit, **_options(wrapper))

    async def add_items(self, items: list[TResponseInputItem], *, wrapper: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        await super().add_items(items, **_options(wrapper))

    async def pop_item(self, *, wrapper: Any = None) -> TResponseInputItem | None:  # ty: ignore[incompatible-method-override]
        return await super().pop_item(**_options(wrapper))

    async def clear_session(self, *, wrapper: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        await super().clear_session(**_options(wrapper))


def _options(wrapper: Any) -> dict[str, Any]:
    return {} if wrapper is None else {"wrapper": wrapper}


async def _result(value: Any) -> Any:
    """Return what a session's method returned. It may be a plain function, as in the SDK."""
    return await value if inspect.isawaitable(value) else value


def _identity(item: Any) -> str:
    """Return a short text that tells an item of a session from others, also by its id."""
    id = item.get("id") if isinstance(item, dict) else getattr(item, "id", None)
    return hashlib.sha256(f"{id}:{canonical_form(item)}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
