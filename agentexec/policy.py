"""Decisions as pure functions: no clock and no I/O. Their callers act on the answers."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from agentexec.task import Status

LOW_PRIORITY_INTERVAL = 16
"""Claimed tasks of which one is taken from LOW first, so a flood of HIGH cannot starve LOW."""

MAX_EPOCH = 2**31 - 1
"""Largest number in the columns of epochs. A task whose epoch cannot be raised can never be claimed."""

MAX_EPOCH_LEAD = 10_000
"""Epochs by which a claim may be ahead of the record: claims that start nothing raise the epoch in the queue alone. One
that is further ahead comes from an entry that was forged, and recording it would use up the numbers."""

MAX_LEAVE_SECONDS = 300.0
"""Longest time for which a task is left for other workers. The record does not have it, unlike every other delay."""

MAX_TOTAL_CRASHES = 100
"""Crashes that end a task even if each followed a new recorded step: a handler that makes different calls in every
attempt would record new steps forever."""


class Admission(enum.Enum):
    """Decision about a task that a worker has claimed."""

    START = "start"
    ACKNOWLEDGE = "acknowledge"
    """The task has ended already: its worker died between result and acknowledgment, or the task was canceled."""
    REFUSE = "refuse"
    """The record has this epoch or a higher one: the claim is stale."""
    HOLD = "hold"
    """The task is a suspect, and another suspect runs in this process: wait, so a crash has a single culprit."""
    FAIL = "fail"
    """The task has crashed too often."""
    EXPIRE = "expire"
    """The task has not started in time."""
    WAIT = "wait"
    """The task may start only later."""
    LEAVE = "leave"
    """This worker has no task of that name: another one may have it."""
    FORGET = "forget"
    """The queue's entry contradicts the record: it is dropped, and the task stays as it is."""


class CrashCounts(NamedTuple):
    """Crashes of a task: all of them, and the consecutive ones since its journal last grew.

    The total makes a task a suspect. Consecutive crashes end it: a task that gets further each time is not a poison
    task.
    """

    total: int = 0
    consecutive: int = 0

    def incremented(self) -> CrashCounts:
        """Return the counts after one more crash."""
        return CrashCounts(self.total + 1, self.consecutive + 1)

    def exceed_limit(self, max_crashes: int) -> bool:
        """Return True if the task has crashed too often to run again."""
        return self.consecutive >= max_crashes or self.total >= max(max_crashes, MAX_TOTAL_CRASHES)

    def is_suspect(self, max_crashes: int) -> bool:
        """Return True for a task that may be one crash from its end. A limit of one crash has no suspects."""
        return max_crashes > 1 and self.total >= max_crashes - 1


def admit(
    *,
    status: Status,
    recorded_epoch: int,
    claimed_epoch: int,
    crashes: CrashCounts,
    max_crashes: int,
    suspect_running: bool,
    is_known: bool = True,
    is_ours: bool = True,
    is_expired: bool = False,
    is_early: bool = False,
) -> tuple[Admission, CrashCounts]:
    """Decide about a claimed task, and return the decision and the crashes to record.

    A task that the record shows RUNNING under a lower epoch was left by a worker that died: one more crash. `is_known`:
    this worker has a task of that name. `is_ours`: it is a task of the queue from which it was claimed, see `is_claim_of`.
    `is_expired`: it had to start before now, and has not. `is_early`: it must not start yet.
    """
    if not is_ours:
        return Admission.FORGET, crashes
    if status.final:
        return Admission.ACKNOWLEDGE, crashes
    if recorded_epoch >= claimed_epoch:
        # Of a task that nobody runs, the entry itself is too old: it would be claimed and refused again.
        return (Admission.FORGET if status is Status.QUEUED else Admission.REFUSE), crashes
    if is_expired:
        return Admission.EXPIRE, crashes
    if is_early:
        return Admission.WAIT, crashes
    if not is_known:
        return Admission.LEAVE, crashes
    crashes = crashes_when_claimed(status, crashes)
    if crashes.exceed_limit(max_crashes):
        return Admission.FAIL, crashes
    if crashes.is_suspect(max_crashes) and suspect_running:
        return Admission.HOLD, crashes
    return Admission.START, crashes


def crashes_when_claimed(status: Status, crashes: CrashCounts) -> CrashCounts:
    """Return the crashes of a task that is claimed again: one that was RUNNING was left by a worker that died."""
    return crashes.incremented() if status is Status.RUNNING else crashes


def is_claim_of(
    queue: str | None, *, recorded_queue: str | None, recorded_epoch: int, claimed_epoch: int
) -> bool:
    """Return True if a claim from a queue can be of the recorded task. Whoever can write to the queue can forge its entry.

    `queue` None: the queue belongs to this process alone, so any claim is.
    """
    if queue is None:
        return True
    return recorded_queue == queue and claimed_epoch - recorded_epoch <= MAX_EPOCH_LEAD


def fits_record(
    *,
    recorded_epoch: int,
    due: float,
    epoch: int,
    leased: bool,
    at: float,
    now: float,
    lease_seconds: float,
) -> bool:
    """Return True if the queue's entry of a task can follow from the record. Whoever can write to the queue can forge it.

    `due`: from when the record lets the task start, 0 for at once. `at`: when its lease ends, or from when the queue lets
    it start. Both may be later by the length of a lease, for clocks that differ, servers that were away, and workers with
    another length.
    """
    lead = epoch - recorded_epoch
    if leased:
        return lead <= MAX_EPOCH_LEAD and at <= now + 2 * lease_seconds
    if not 0 <= lead < MAX_EPOCH_LEAD:
        return False
    return at <= max(due, now) + 2 * lease_seconds + (MAX_LEAVE_SECONDS if lead else 0.0)


def attribute_crash(
    running: Iterable[tuple[UUID, CrashCounts]], max_crashes: int, culprit: UUID | None = None
) -> set[UUID]:
    """Return the tasks to which a crash of their process counts, of those that ran in it (id, crashes so far).

    `culprit` is the task that is known to have caused it, if that is known. Otherwise at most one suspect runs in a process at a time. If a suspect ran, it is held responsible, and the crash does not
    count for the tasks beside it; otherwise it counts for every task, since any of them may have caused it.
    """
    tasks = list(running)
    if any(agent_id == culprit for agent_id, _ in tasks):
        return {agent_id for agent_id, _ in tasks if agent_id == culprit}
    suspects = {agent_id for agent_id, crashes in tasks if crashes.is_suspect(max_crashes)}
    return suspects or {agent_id for agent_id, _ in tasks}


def leave_delay(waited: float, left_in_minute: int, jitter: float) -> float:
    """Return the seconds until a task that a worker lacks is offered again: half as long as it has waited, 1 to 60.

    A process that has left many within a minute leaves them for up to 5 minutes, so about 50 return in a second and
    thousands do not keep it from its own tasks. `jitter` (0 to 1) takes off up to a fifth, so they do not return together.
    """
    by_time = min(60.0, max(1.0, waited / 2))
    return max(by_time, min(MAX_LEAVE_SECONDS, left_in_minute / 50)) * (1.0 - 0.2 * jitter)


def low_priority_quota(claimed_before: int, limit: int) -> int:
    """Return how many of the next `limit` claims go to LOW first, after `claimed_before` claims of this process."""
    return (claimed_before + limit) // LOW_PRIORITY_INTERVAL - claimed_before // LOW_PRIORITY_INTERVAL


def retry_delay(attempt: int, retries: int, jitter: float) -> float | None:
    """Return the seconds until the next attempt after `attempt` failed attempts (1 or more), None to give up.

    The delay is 2, 4, 8 … up to 300 seconds. `jitter` (0 to 1) takes off up to a fifth, so tasks that failed together
    do not return together.
    """
    if attempt > retries:
        return None
    return min(300.0, 2.0 ** min(attempt, 20)) * (1.0 - 0.2 * jitter)
