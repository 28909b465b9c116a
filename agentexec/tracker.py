"""Tracker: a counter that many tasks share, to know when a dynamic fan-out is done."""

from __future__ import annotations

from contextvars import ContextVar
from urllib.parse import quote

from agentexec.errors import UsageError
from agentexec.runtime import RUNTIME

_last_decr: ContextVar[dict[str, int] | None] = ContextVar("agentexec_tracker_last_decr", default=None)


class Tracker:
    """Counts what is under way. Atomic across processes; synchronous, and short enough for async code.

    `name` and the further parts make up its identity: the same parts mean the same counter everywhere.
    """

    def __init__(self, name: str, *parts: object) -> None:
        if not name:
            raise UsageError("A tracker needs a name.")
        # Escaped, so that ("a:b", "c") is not ("a", "b:c").
        self.key = ":".join(quote(str(part), safe="") for part in (name, *parts))

    def incr(self, amount: int = 1) -> int:
        """Add to the count and return it. Raises UnavailableError."""
        _last_decr.set({key: left for key, left in (_last_decr.get() or {}).items() if key != self.key})
        return RUNTIME.backend.add(self.key, amount)

    def decr(self, amount: int = 1) -> int:
        """Take from the count and return what is left. Raises UnavailableError."""
        left = RUNTIME.backend.add(self.key, -amount)
        # A copy: a context that was inherited must not see its sibling's count.
        _last_decr.set({**(_last_decr.get() or {}), self.key: left})
        return left

    @property
    def count(self) -> int:
        """The count now."""
        return RUNTIME.backend.add(self.key, 0)

    @property
    def complete(self) -> bool:
        """True when nothing is under way.

        After a `decr` in the same task or function this is the answer of that very `decr`: of several tasks
        that end together, exactly one sees True.
        """
        left = (_last_decr.get() or {}).get(self.key)
        return (self.count if left is None else left) <= 0
