"""The clock of leases: the time since a moment, also when this process or its host did not run in between."""

from __future__ import annotations

import time
from typing import NamedTuple

from agentexec.db.clock import running_seconds


class Instant(NamedTuple):
    """A moment, by two clocks of this host."""

    running: float
    wall: float


def present() -> Instant:
    """Return the present moment."""
    return Instant(running_seconds(), time.time())


def seconds_between(first: Instant, second: Instant) -> float:
    """Return the seconds from one moment of this process to another.

    The longer of two times counts. A paused virtual machine sees its pause only in the wall clock, once that is set
    right; one that is set back says nothing.
    """
    return max(second.running - first.running, second.wall - first.wall)


def seconds_since(instant: Instant) -> float:
    """Return the seconds since a moment of this process; see `seconds_between`."""
    return seconds_between(instant, present())
