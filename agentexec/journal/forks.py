"""Forks: tasks that begin with the journal of another task up to a turn, and go on from there with changes.

A fork's journal has one fact of its own at FORK_PATH, which says what it comes from and what was changed. A fork
starts with the epoch of its origin, so its first worker reads the journal as after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, func, insert, literal, select, update

from agentexec.db.chunks import chunks
from agentexec.journal.cuts import Cut
from agentexec.journal.events import EVENT_WAIT
from agentexec.journal.facts import Fact, FactKind, dump
from agentexec.journal.models import JournalHistory
from agentexec.journal.question_rows import APPROVAL, OF_PRESENT_RUN
from agentexec.journal.questions import PAST_RUNS, PENDING, past_path, past_run_of
from agentexec.journal.store import JOURNAL
from agentexec.journal.trackers import MARK
from agentexec.payloads.columns import is_inline, stored
from agentexec.payloads.offloading import copy_payload

FORK_PATH = "/fork"
"""Place of the fact. No run or call has a path that begins with a slash."""


class Change(NamedTuple):
    """Changes of a run from a turn on. `input` is a message that the model reads right before that turn's response."""

    run: str
    turn: int
    instructions: str | None = None
    model: str | None = None
    input: str | None = None


class Origin(NamedTuple):
    """A task that a fork comes from: its children before `until` belong to the fork too. `attempts` that it has had."""

    agent_id: UUID
    until: datetime
    attempts: int


class Fork(NamedTuple):
    """Origins of a fork, the nearest task first, and its changes, the earliest first."""

    origins: tuple[Origin, ...]
    changes: tuple[Change, ...]

    @property
    def run(self) -> str:
        """The run that was forked."""
        return self.changes[-1].run

    @property
    def turn(self) -> int:
        """The first turn that the fork takes itself."""
        return self.changes[-1].turn


def next_fork(before: Fork | None, origin: Origin, change: Change) -> Fork:
    """Return the fork of a task. The changes of a fork that is forked again stay, unless they come after the turn."""
    if before is None:
        return Fork((origin,), (change,))
    earlier = [known for known in before.changes if known.run != change.run or known.turn < change.turn]
    return Fork((origin, *before.origins), (*earlier, change))


def dump_fork(fork: Fork) -> str:
    """Return a fork as the value of its fact. Raises PayloadTooLargeError."""
    origins = [
        {"agent_id": str(origin.agent_id), "until": origin.until.isoformat(), "attempts": origin.attempts}
        for origin in fork.origins
    ]
    return dump({"origins": origins, "changes": [change._asdict() for change in fork.changes]}, "A fork")


def load_fork(text: str) -> Fork:
    """Return the fork that `dump_fork` was given."""
    data = json.loads(text)
    origins = (
        Origin(UUID(origin["agent_id"]), datetime.fromisoformat(origin["until"]), origin["attempts"])
        for origin in data["origins"]
    )
    return Fork(tuple(origins), tuple(Change(**change) for change in data["changes"]))


def fork_of(facts: Sequence[Fact]) -> Fork | None:
    """Return the fork that the facts at FORK_PATH describe; None for other tasks."""
    return load_fork(facts[0].value) if facts else None


def read_fork(connection: Connection, agent_id: UUID) -> Fork | None:
    """Return what a task is a fork of; None if it is none."""
    query = select(JOURNAL.c.value).where(JOURNAL.c.agent_id == agent_id, JOURNAL.c.path == FORK_PATH)
    text = connection.execute(query).scalar()
    return None if text is None else load_fork(text)


def copy_cut(connection: Connection, origin: UUID, fork: UUID, cut: Cut) -> None:
    """Copy the facts of a cut to a fork, with the answers of people that belong to them.

    A sandbox is not copied: two tasks would work in one folder.
    """
    for condition in cut.conditions():
        chosen = [JOURNAL.c.agent_id == origin, condition, JOURNAL.c.kind != FactKind.SANDBOX]
        _copy(connection, JOURNAL, origin, fork, *chosen, JOURNAL.c.path != FORK_PATH)
    _copy_payloads(connection, fork)
    answered = [APPROVAL.c.agent_id == origin, APPROVAL.c.status != PENDING, OF_PRESENT_RUN]
    query = select(APPROVAL.c.path, APPROVAL.c.created_at).where(*answered)
    paths = {row.path for row in connection.execute(query) if cut.keeps_call(row.path, row.created_at)}
    for chunk in chunks(sorted(paths)):
        _copy(connection, APPROVAL, origin, fork, *answered, APPROVAL.c.path.in_(chunk))
    # Their times are unknown. A change that is not repeated does less harm than one that is.
    _copy(connection, MARK, origin, fork, MARK.c.agent_id == origin)


def _copy_payloads(connection: Connection, fork: UUID) -> None:
    """Give a fork copies of the large values that its journal refers to: those of its origin go with the origin."""
    c = JOURNAL.c
    rows = connection.execute(
        select(c.path, c.seq, stored(c.value)).where(c.agent_id == fork, ~is_inline(c.value))
    )
    for row in rows.all():
        place = (c.agent_id == fork, c.path == row.path, c.seq == row.seq)
        connection.execute(update(JOURNAL).where(*place).values(value=copy_payload(row.value, fork)))


def truncate(connection: Connection, agent_id: UUID, cut: Cut, run: int) -> None:
    """Remove the facts after a cut from a task's journal, with the waits and open questions that belong to them.

    What people have decided stays on the record as part of a run that is over; `run` is its number. What the task is a
    fork of stays too, and so do the marks of trackers, because their counts would be changed twice.
    """
    for condition in cut.dropped_conditions():
        mine = JOURNAL.c.agent_id == agent_id, JOURNAL.c.path != FORK_PATH
        connection.execute(delete(JOURNAL).where(*mine, condition))
    for table, conditions in ((APPROVAL, (APPROVAL.c.status == PENDING,)), (EVENT_WAIT, ())):
        mine = table.c.agent_id == agent_id, *conditions
        paths = {row.path for row in _rows_after(connection, table, cut, *mine)}
        for chunk in chunks(sorted(paths)):
            connection.execute(delete(table).where(*mine, table.c.path.in_(chunk)))
    mine = APPROVAL.c.agent_id == agent_id, OF_PRESENT_RUN
    if decided := _rows_after(connection, APPROVAL, cut, *mine):
        moved = [{"old": path, "new": past_path(run, path)} for path in sorted({row.path for row in decided})]
        path_is = APPROVAL.c.path == bindparam("old")
        # The queue is told of nothing that happened before.
        statement = update(APPROVAL).where(*mine, path_is).values(path=bindparam("new"), wake_at=None)
        connection.execute(statement, moved)


def _rows_after(connection: Connection, table: Any, cut: Cut, *conditions: Any) -> list[Any]:
    """Return path and time of the questions or waits that do not belong to a cut."""
    rows = connection.execute(select(table.c.path, table.c.created_at).where(*conditions))
    return [row for row in rows if not cut.keeps_call(row.path, row.created_at)]


def next_run(connection: Connection, agent_id: UUID) -> int:
    """Return the number of a task's present run once it is over: runs that are over count from 1."""
    history, past = JournalHistory.__table__.c, APPROVAL.c.path.startswith(PAST_RUNS)
    latest = connection.execute(select(func.max(history.run)).where(history.agent_id == agent_id)).scalar()
    paths = connection.execute(select(APPROVAL.c.path).where(APPROVAL.c.agent_id == agent_id, past)).scalars()
    return max(latest or 0, *(past_run_of(path) or 0 for path in paths), 0) + 1


def write_fork(connection: Connection, agent_id: UUID, epoch: int, fork: Fork, now: datetime) -> None:
    """Write the fact that makes a task a fork."""
    values = {"kind": FactKind.FORK, "input_hash": "", "value": dump_fork(fork), "created_at": now}
    connection.execute(
        insert(JOURNAL).values(agent_id=agent_id, path=FORK_PATH, seq=0, epoch=epoch, **values)
    )


def _copy(connection: Connection, table: Any, origin: UUID, fork: UUID, *conditions: Any) -> None:
    """Copy the rows of a task that meet the conditions, as rows of another task."""
    columns = [column for column in table.c if column.name != "agent_id"]
    rows = select(literal(fork, table.c.agent_id.type), *columns).where(*conditions)
    connection.execute(insert(table).from_select(["agent_id", *(column.name for column in columns)], rows))
