"""DynamoDB's time, estimated from the dates of its replies: conditions cannot ask for it, and clocks of hosts differ."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime


class ServerClock:
    """Clock that a host with a wrong one corrects. A host whose clock may be right keeps its own.

    Each reply gives two bounds of the difference, a second and the length of the call apart; many replies make them closer.

    Args:
        local: Returns the host's time in seconds since the epoch.
    """

    def __init__(self, local: Callable[[], float] | None = None) -> None:
        self._local = local or (lambda: time.time())
        self._bounds = (-math.inf, math.inf)

    @property
    def is_known(self) -> bool:
        """True once a reply was noted."""
        return self._bounds[0] > -math.inf

    def local(self) -> float:
        """Return the host's time."""
        return self._local()

    def now(self) -> float:
        """Return the time by the server, in seconds since the epoch."""
        low, high = self._bounds
        return self._local() + min(max(0.0, low), high)

    def note(self, date: str, sent: float) -> None:
        """Note the date of a reply to a request that was sent at a moment of the host's time."""
        try:
            second = parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
        except (TypeError, ValueError):
            return
        low, high = second - self._local(), second + 1.0 - sent
        before = self._bounds
        bounds = max(low, before[0]), min(high, before[1])
        # One of the clocks was set: what was known is no longer true.
        self._bounds = bounds if bounds[0] <= bounds[1] else (low, high)
