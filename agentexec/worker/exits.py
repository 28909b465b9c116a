"""Decisions about processes that have ended, as pure functions: why, and when the next one starts.

The supervisor uses them, so they do without what a task consists of: see `policy.py` for tasks.
"""

from __future__ import annotations

import signal

CRASH_SIGNALS = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV})
"""Signals that a program brings on itself. A module that does so while it is imported would do it again."""

FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
"""Seconds before a process that died quickly twice is replaced, and at most; each further death doubles them."""


def restart_delay(quick_deaths: int) -> float:
    """Return the seconds before a dead child is replaced: 0 after a first quick death, more after each further one."""
    return 0.0 if quick_deaths <= 1 else min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(quick_deaths - 2, 20))


def ended_by_itself(code: int) -> bool:
    """Return whether a process has exited or crashed, rather than being killed, by its exit code."""
    return code >= 0 or -code in CRASH_SIGNALS


def exit_reason(code: int) -> str:
    """Return a description of an exit code, to complete "The worker process …". Negative codes are signals."""
    if code == 0:
        return "has stopped"
    if code > 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
