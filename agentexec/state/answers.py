"""Answers of a state backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from agentexec.task import Lease


class ClaimResult(NamedTuple):
    """Leases of a claim, and the seconds until the next delayed task is due (None: no task is delayed).

    `next_due` may be None when the claim returned as many leases as it asked for.
    """

    leases: list[Lease]
    next_due: float | None


class PushStatement(NamedTuple):
    """INSERT that pushes tasks to a queue in the record's database, as a part of another statement, and its values.

    `wake`: statement that wakes the workers of other processes after the commit, in place of the backend's own `wake`.
    `note_woken`: to be called when it has run; it neither blocks nor fails.
    """

    sql: str
    values: dict[str, Any]
    wake: tuple[str, Mapping[str, Any]] | None = None
    note_woken: Callable[[], None] = lambda: None


class Depth(NamedTuple):
    """Task counts of a queue: ready to start, delayed, leased to a worker, and waiting for a lock or a limit."""

    ready: int
    delayed: int
    leased: int
    waiting: int = 0


class Inspection(NamedTuple):
    """State of a queue's index: what `is_intact` and `expired_leases` return, where a backend can tell both at once."""

    is_intact: bool
    expired: list[Lease]


class LostLeases(NamedTuple):
    """Leases that a renewal could not extend.

    `taken`: another worker holds a higher epoch, so the attempt must stop. `missing`: the index does not know
    the task (it was canceled, or the index was emptied); the record decides.
    """

    taken: list[UUID]
    missing: list[UUID]


class Comparison(NamedTuple):
    """Tasks about which the index and the record disagree.

    `missing`: the index does not know them. `wrong`: it knows them otherwise than can follow from the record.
    """

    missing: list[UUID]
    wrong: list[UUID]


class TaskPage(NamedTuple):
    """Some of the tasks that an index knows, and the cursor of the next page; an empty cursor after the last one."""

    agent_ids: list[UUID]
    cursor: str


class Event(NamedTuple):
    """Live event of a task, and its number: one more than that of the event before it."""

    number: int
    text: str


class Waiting(NamedTuple):
    """Group for which a task waits, the number of tasks before it, and tasks that the group has admitted (a few of them)."""

    group: str
    before: int
    holders: list[UUID]
