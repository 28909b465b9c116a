"""Pure decisions: from what is known to what to do. No clock, no I/O; the edges act on the answers."""

from __future__ import annotations

import enum
import signal
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from agentexec.outage import backoff
from agentexec.task import Status

LOW_PRIORITY_INTERVAL = 16
"""Of this many claimed tasks, one is taken from LOW first, so that a flood of HIGH cannot starve LOW."""

MAX_TOTAL_CRASHES = 100
"""Deaths that end a task even if a step was recorded before each: a handler that asks for something else in every
attempt records new steps for ever."""


class Admission(enum.Enum):
    """What to do with a task that a worker has claimed."""

    START = "start"
    ACKNOWLEDGE = "acknowledge"
    """It has ended already (its worker died between result and acknowledgement, or it was canceled)."""
    REFUSE = "refuse"
    """A higher epoch is in the record: this claim is stale."""
    HOLD = "hold"
    """One death from the end, and another such task runs here: wait, so that a death names one culprit."""
    FAIL = "fail"
    """Its process died too often."""


class CrashCounts(NamedTuple):
    """Deaths of a task's process, and those of them since its journal last grew.

    All of them make it a suspect; those in a row end it, for a task that gets further each time is no poison.
    """

    total: int = 0
    consecutive: int = 0

    def incremented(self) -> CrashCounts:
        return CrashCounts(self.total + 1, self.consecutive + 1)

    def exceed_limit(self, max_crashes: int) -> bool:
        return self.consecutive >= max_crashes or self.total >= max(max_crashes, MAX_TOTAL_CRASHES)

    def is_suspect(self, max_crashes: int) -> bool:
        """True for a task that may be one death from the end. A single allowed death marks no suspects."""
        return max_crashes > 1 and self.total >= max_crashes - 1


def admit(
    *,
    status: Status,
    recorded_epoch: int,
    claimed_epoch: int,
    crashes: CrashCounts,
    max_crashes: int,
    suspect_running: bool,
) -> tuple[Admission, CrashCounts]:
    """Decide on a claimed task; returns the decision and the deaths to note.

    A record that is RUNNING under a lower epoch was left by a worker that died without a word: one more death.
    """
    if status.final:
        return Admission.ACKNOWLEDGE, crashes
    if recorded_epoch >= claimed_epoch:
        return Admission.REFUSE, crashes
    if status is Status.RUNNING:
        crashes = crashes.incremented()
    if crashes.exceed_limit(max_crashes):
        return Admission.FAIL, crashes
    if crashes.is_suspect(max_crashes) and suspect_running:
        return Admission.HOLD, crashes
    return Admission.START, crashes


def attribute_crash(running: Iterable[tuple[UUID, CrashCounts]], max_crashes: int) -> set[UUID]:
    """Which of the tasks (id, deaths so far) that ran in a dead process have a death noted.

    At most one suspect runs in a process at a time. If one did, it is taken to be the culprit, and the tasks
    beside it go free; else every task is counted, as any of them may have been it.
    """
    tasks = list(running)
    suspects = {agent_id for agent_id, crashes in tasks if crashes.is_suspect(max_crashes)}
    return suspects or {agent_id for agent_id, _ in tasks}


def low_priority_quota(claimed_before: int, limit: int) -> int:
    """How many of the next `limit` claims go to LOW first, after `claimed_before` claims of this process."""
    return (claimed_before + limit) // LOW_PRIORITY_INTERVAL - claimed_before // LOW_PRIORITY_INTERVAL


def retry_delay(attempt: int, retries: int, jitter: float) -> float | None:
    """Seconds until the next attempt after `attempt` attempts (1 or more) have failed; None to give up.

    2, 4, 8 … up to 300 seconds; `jitter` (0 to 1) spreads it down by up to a fifth, so that tasks that failed
    together do not return together.
    """
    if attempt > retries:
        return None
    return min(300.0, 2.0 ** min(attempt, 20)) * (1.0 - 0.2 * jitter)


def restart_delay(quick_deaths: int) -> float:
    """Seconds before a dead child is replaced: none for a first death, more for one that keeps dying young."""
    return 0.0 if quick_deaths <= 1 else backoff(quick_deaths - 1, initial=0.25, maximum=15.0)


def exit_reason(code: int) -> str:
    """What an exit code says of a process, to complete "The worker process …"; negative codes are signals."""
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
