"""Admission of claimed tasks: the decision about a batch of claims, and the rows of those that start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from agentexec.activity.changes.crashes import NO_CRASHES, FailedTask, RunningTask, crashes_from_row
from agentexec.activity.changes.expirations import ExpiredTask, has_expired
from agentexec.activity.changes.postponements import Postponed, TaskKeys
from agentexec.activity.changes.statements import statements_for
from agentexec.activity.changes.versions import NO_VERSIONS, Versions
from agentexec.db.chunks import chunks
from agentexec.policy import Admission, CrashCounts, admit, crashes_when_claimed, is_claim_of
from agentexec.task import Lease, Status

BUSY_SECONDS = 0.2
"""Seconds for which a task is given back that another process has locked."""


@dataclass(frozen=True, slots=True)
class StartTerms:
    """Everything beside the rows that decides about the claims of one worker, and what is written about those that start."""

    now: datetime
    message: str
    """Line in the log of each task that starts."""
    max_crashes: int
    """Crashes in a row that end a task."""
    task_names: Collection[str] | None = None
    """Names of the tasks that this worker has; None admits tasks of any name."""
    queue: str | None = None
    """Queue from which the tasks were claimed; None does not compare it."""
    keys: TaskKeys | None = None
    """Keys by which this worker's tasks are locked and limited."""
    versions: Versions = NO_VERSIONS
    """Versions of this worker's tasks."""
    starts_early: bool = False
    """True to start debounced tasks before they are due."""

    def fits(self, row: Any, lease: Lease) -> tuple[bool, bool]:
        """Return whether a claim can be of the recorded task, and whether this worker has that, in a version that may run it."""
        is_ours = is_claim_of(
            self.queue, recorded_queue=row.queue, recorded_epoch=row.epoch, claimed_epoch=lease.epoch
        )
        is_known = self.task_names is None or row.agent_type in self.task_names
        return is_ours, is_known and not (self.versions.is_pinned and self.versions.leaves(row))

    def decide(self, row: Any, lease: Lease, suspect_running: bool) -> tuple[Admission, CrashCounts]:
        """Return the decision about a claim, and the crashes to record."""
        is_ours, is_known = self.fits(row, lease)
        if is_ours and is_known and row.epoch < lease.epoch and _is_plain(row):
            return Admission.START, NO_CRASHES  # nearly every task; the policy would say the same
        return admit(
            status=row.status,
            recorded_epoch=row.epoch,
            claimed_epoch=lease.epoch,
            crashes=crashes_from_row(row),
            max_crashes=self.max_crashes,
            suspect_running=suspect_running,
            is_known=is_known,
            is_ours=is_ours,
            is_expired=has_expired(row, self.now),
            is_early=not self.starts_early and _is_early(row, self.now),
        )


class Admitted(NamedTuple):
    """A task that is RUNNING under its lease and may start now."""

    lease: Lease
    task_name: str
    context: str | None
    attempt: int
    crashes: CrashCounts
    queued_at: datetime | None = None
    """Since when it could start."""
    trace_context: str | None = None
    budget: str | None = None

    @classmethod
    def from_row(cls, row: Any, lease: Lease, crashes: CrashCounts, queued_at: datetime) -> Admitted:
        """Return the task of a row that is about to start."""
        return cls(
            lease,
            row.agent_type,
            row.context,
            row.attempt + 1,
            crashes,
            queued_at,
            row.trace_context,
            row.budget,
        )


class LeftTask(NamedTuple):
    """A task that this worker lacks, or has in another version, and the seconds since a worker left it first."""

    lease: Lease
    task_name: str
    waited: float
    version: str | None = None
    """Version with which it began."""
    is_new: bool = False
    """True if nobody has begun it, and workers of a newer version are there."""


class EarlyTask(NamedTuple):
    """A task that may start only in some seconds."""

    lease: Lease
    seconds: float


@dataclass(slots=True)
class Admissions:
    """The outcome for each of a batch of claims."""

    started: list[Admitted] = field(default_factory=list)
    ended: list[Lease] = field(default_factory=list)
    """To be acknowledged: the record has their end, or does not know them."""
    held: list[Lease] = field(default_factory=list)
    refused: list[Lease] = field(default_factory=list)
    poisoned: list[RunningTask] = field(default_factory=list)
    failed: list[FailedTask] = field(default_factory=list)
    """Tasks that end with the admission: the poisoned, and those that nobody knows."""
    unknown: list[Lease] = field(default_factory=list)
    """Tasks whose names this worker lacks, to be decided about by `leave_unknown`."""
    left: list[LeftTask] = field(default_factory=list)
    """Those of them that are left for other workers."""
    contradicted: list[Lease] = field(default_factory=list)
    """Claims that the record contradicts: their entries are dropped, and the tasks stay as they are."""
    postponed: list[tuple[Lease, Postponed]] = field(default_factory=list)
    """Tasks that wait for their locks, to be given back to the queue."""
    expired: list[ExpiredTask] = field(default_factory=list)
    """Tasks that had not started in time."""
    early: list[EarlyTask] = field(default_factory=list)
    """Tasks that wait longer than their entries say: an enqueue was merged into them, or another process has them locked."""

    def leave_busy(self, claims: Sequence[Lease], busy: Collection[UUID]) -> None:
        """Give back those claims whose tasks another process has locked: it may be frozen."""
        self.early.extend(EarlyTask(lease, BUSY_SECONDS) for lease in claims if lease.agent_id in busy)


def decide_admissions(
    claims: Sequence[Lease],
    rows: Sequence[Any],
    terms: StartTerms,
    *,
    suspect_running: bool,
    postponed: Mapping[UUID, Postponed] | None = None,
) -> Admissions:
    """Decide about claims by their rows in the record. At most one suspect starts, and only by itself.

    `suspect_running`: no suspect may start now. `postponed`: the tasks that may not start yet, see `find_postponed`.
    """
    admissions = Admissions()
    others = {
        Admission.ACKNOWLEDGE: admissions.ended,
        Admission.REFUSE: admissions.refused,
        Admission.HOLD: admissions.held,
        Admission.LEAVE: admissions.unknown,
        Admission.FORGET: admissions.contradicted,
    }
    leases = {lease.agent_id: lease for lease in claims}
    known = _in_order(rows, leases)
    # The others first: beside one of them no suspect starts.
    for row in _suspects_last(known, terms.max_crashes):
        lease = leases[row.agent_id]
        decision, crashes = terms.decide(row, lease, suspect_running)
        if decision is Admission.START and postponed and row.agent_id in postponed:
            admissions.postponed.append((lease, postponed[row.agent_id]))
        elif decision is Admission.START:
            suspect_running = True
            admissions.started.append(Admitted.from_row(row, lease, crashes, startable_since(row)))
        elif decision in others:
            others[decision].append(lease)
        else:
            _set_aside(admissions, decision, RunningTask(lease, crashes, row.agent_type), row, terms.now)
    # Not in the record: the enqueuing transaction was rolled back, or retention removed it.
    if len(known) < len(leases):
        found = {row.agent_id for row in known}
        admissions.ended.extend(lease for lease in leases.values() if lease.agent_id not in found)
    return admissions


def _in_order(rows: Sequence[Any], leases: Mapping[UUID, Lease]) -> list[Any]:
    """Return rows in the order in which they were claimed."""
    found = {row.agent_id: row for row in rows}
    in_order = [found.get(agent_id) for agent_id in leases]
    return [row for row in in_order if row is not None]


def _is_plain(row: Any) -> bool:
    """Return whether a task waits to be started and has no crashes, no expiry and no debounce."""
    return (
        row.status is Status.QUEUED
        and not (row.crashes or row.crashes_in_row)
        and row.expires_at is None
        and row.debounce_key is None
    )


def _suspects_last(rows: Sequence[Any], max_crashes: int) -> Sequence[Any]:
    if not [row for row in rows if row.crashes or row.status is not Status.QUEUED]:
        return rows  # nearly every batch
    return sorted(rows, key=lambda row: _is_suspect(row, max_crashes))


def _is_suspect(row: Any, max_crashes: int) -> bool:
    return crashes_when_claimed(row.status, crashes_from_row(row)).is_suspect(max_crashes)


def _set_aside(
    admissions: Admissions, decision: Admission, task: RunningTask, row: Any, now: datetime
) -> None:
    """Sort a task that does not start into those of its kind."""
    if decision is Admission.WAIT:
        admissions.early.append(EarlyTask(task.lease, (row.run_at - now).total_seconds()))
    elif decision is Admission.EXPIRE:
        admissions.expired.append(ExpiredTask(row.agent_id, row.queue, row.expires_at))
        admissions.ended.append(task.lease)
    else:
        admissions.poisoned.append(task)


def startable_since(row: Any) -> Any:
    """Return when a task came to the queue, or the later moment that it was to wait for, in the row's form of moments."""
    return row.updated_at if row.run_at is None else max(row.updated_at, row.run_at)


def _is_early(row: Any, now: datetime) -> bool:
    """Return whether a debounced task was enqueued again since its entry was made, and has to wait for longer."""
    is_debounced = row.debounce_key is not None and row.started_at is None
    return is_debounced and row.run_at is not None and row.run_at > now


def start_tasks(connection: Connection, started: Sequence[Admitted], terms: StartTerms) -> None:
    """Make admitted tasks RUNNING under their new epochs, with a log line each."""
    sql = statements_for(connection)
    groups: dict[tuple[int, CrashCounts, str, str | None], list[UUID]] = defaultdict(list)
    for admitted in started:
        message, version = start_line(terms.message, admitted), terms.versions.of(admitted.task_name)
        groups[admitted.lease.epoch, admitted.crashes, message, version].append(admitted.lease.agent_id)
    for (epoch, crashes, message, version), ids in groups.items():
        values = {
            "new_epoch": epoch,
            "new_crashes": crashes.total,
            "new_in_row": crashes.consecutive,
            "new_message": message,
            "new_version": version,
            "now": terms.now,
        }
        for chunk in chunks(ids):
            connection.execute(sql.start, {"ids": chunk, **values})
            connection.execute(sql.insert_log_lines, {"ids": chunk, "now": terms.now})


def start_line(message: str, admitted: Admitted) -> str:
    """Return the log line of a start: the message, and after a crash also which attempt it is."""
    crashes = admitted.crashes.total
    if admitted.attempt == 1 or not crashes:
        return message
    after = "a crash" if crashes == 1 else f"{crashes} crashes"
    text = message.removesuffix(".")
    return f"{text} (attempt {admitted.attempt}, after {after}){message[len(text) :]}"
