"""Cuts of a journal: the facts that come before a turn of a run, which a fork copies and a retry keeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select
from sqlalchemy.orm import Session

from agentexec.db.chunks import chunks
from agentexec.errors import UsageError
from agentexec.journal.facts import FactKind, fit_path
from agentexec.journal.store import JOURNAL

MAX_RUNS = 100
"""Runs of a task that are listed."""

Moment = tuple[int, datetime]
"""Moment of a fact: the epoch, because the clocks of two workers may differ, then the time on the worker's clock."""


class Row(NamedTuple):
    """A fact of the journal without its value."""

    path: str
    seq: int
    kind: str
    epoch: int
    created_at: datetime

    @property
    def moment(self) -> Moment:
        """The moment at which it was recorded."""
        return self.epoch, self.created_at


class Cut:
    """The facts before a turn of a run. `turn` is the first one that is left out; 0 leaves out everything.

    Facts of the run and of its calls are told apart by the responses that they belong to. Everything else that the task
    did, such as runs beside this one, belongs to the cut if it had begun before the response of that turn was recorded. A call
    that had begun is kept as a whole: it has had its effect.
    """

    def __init__(self, rows: Sequence[Row], run: str, turn: int, calls: Sequence[Sequence[str]]) -> None:
        """`calls`: the ids of the calls in each response of the run, in order."""
        self.run = run
        self.turn = turn
        self._end = next((row.moment for row in rows if row.path == run and row.seq == turn), None)
        earlier = max(turn - 1, 0)
        self._earlier, self._later = _call_paths(run, calls[:earlier]), _call_paths(run, calls[earlier:])
        self._runs = {row.path for row in rows if row.kind == FactKind.RUN and "/" not in row.path}
        self._recorded = Counter(row.path for row in rows)
        self._begun = self._find_begins(rows)
        self.kept = Counter(row.path for row in rows if turn and self._keeps(row))
        """The number of facts that are kept at each path."""

    @property
    def time(self) -> datetime | None:
        """The time of the response that is the first one left out; None if it was never recorded."""
        return self._end[1] if self._end is not None else None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield conditions that together choose the facts that are kept, each for a bounded number of paths."""
        whole = [path for path, kept in self.kept.items() if kept == self._recorded[path]]
        partial = [(path, kept) for path, kept in self.kept.items() if kept < self._recorded[path]]
        for chunk in chunks(whole):
            yield JOURNAL.c.path.in_(chunk)
        for chunk in chunks(partial):
            yield or_(*(and_(JOURNAL.c.path == path, JOURNAL.c.seq < kept) for path, kept in chunk))

    def dropped_conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield conditions that together choose the facts that are left out, likewise."""
        for chunk in chunks([path for path in self._recorded if not self.kept[path]]):
            yield JOURNAL.c.path.in_(chunk)
        for path, kept in self.kept.items():
            if kept < self._recorded[path]:
                yield and_(JOURNAL.c.path == path, JOURNAL.c.seq >= kept)

    @property
    def dropped(self) -> int:
        """The number of facts that are left out."""
        return self._recorded.total() - self.kept.total()

    def keeps_call(self, path: str, at: datetime) -> bool:
        """Decide whether something that is not in the journal belongs to the cut, by the path of its call and its time."""
        if self.turn == 0:
            return False
        return self._keeps_by_response(path, self.time is None or at < self.time)

    def _find_begins(self, rows: Sequence[Row]) -> dict[str, Moment]:
        """Return the moment of the first fact of each unit."""
        begun: dict[str, Moment] = {}
        for row in rows:
            unit = self._unit(row.path)
            begun[unit] = min(row.moment, begun.get(unit, row.moment))
        return begun

    def _keeps(self, row: Row) -> bool:
        if row.kind == FactKind.BACKGROUND:
            return False  # what is recorded needs it no more, and what is not is asked again
        if row.path == self.run:
            return row.seq < self.turn
        moment = row.moment if row.path in self._runs else self._begun[self._unit(row.path)]
        return self._keeps_by_response(row.path, self._end is None or moment < self._end)

    def _unit(self, path: str) -> str:
        """Return the path of the outermost call or step that a path is inside of; a run at the top is its own unit."""
        if path.startswith("/"):  # a fact about the task as a whole
            return path
        first, separator, inside = path.partition("/")
        return f"{first}/{inside.partition('/')[0]}" if separator and first in self._runs else first

    def _keeps_by_response(self, path: str, is_earlier: bool) -> bool:
        """Decide by the response that made a call; `is_earlier` decides about what no response of the run made."""
        if _is_inside(path, self._earlier):
            return True
        return is_earlier and not _is_inside(path, self._later)


def _call_paths(run: str, calls: Sequence[Sequence[str]]) -> set[str]:
    return {fit_path(f"{run}/{call}") for ids in calls for call in ids}


def _is_inside(path: str, calls: set[str]) -> bool:
    """Return True for the path of one of the calls, and for everything that happened inside it."""
    while path not in calls:
        path, separator, _ = path.rpartition("/")
        if not separator:
            return False
    return True


def read_rows(connection: Connection, agent_id: UUID) -> list[Row]:
    """Return the facts of a task, ordered by path and seq."""
    query = (
        select(JOURNAL.c.path, JOURNAL.c.seq, JOURNAL.c.kind, JOURNAL.c.epoch, JOURNAL.c.created_at)
        .where(JOURNAL.c.agent_id == agent_id)
        .order_by(JOURNAL.c.path, JOURNAL.c.seq)
    )
    return [Row(*row) for row in connection.execute(query)]


def list_runs(db: Session, agent_id: UUID) -> list[tuple[str, int]]:
    """Return the runs that a fork can begin in, the first MAX_RUNS, each with the number of its recorded turns."""
    turns = func.sum(case((JOURNAL.c.kind == FactKind.MODEL, 1), else_=0))
    query = (
        select(JOURNAL.c.path, turns)
        .where(JOURNAL.c.agent_id == agent_id, JOURNAL.c.kind.in_((FactKind.RUN, FactKind.MODEL)))
        .where(~JOURNAL.c.path.contains("/"))
        .group_by(JOURNAL.c.path)
        .order_by(func.min(JOURNAL.c.created_at), JOURNAL.c.path)
        .limit(MAX_RUNS)
    )
    return [(path, int(number)) for path, number in db.execute(query)]


def choose_run(agent_id: UUID, rows: Sequence[Row], run: str | None) -> str:
    """Return the path of the run that is meant: the task's only one, unless it is named."""
    runs = [row.path for row in rows if row.kind == FactKind.RUN and row.seq == 0 and "/" not in row.path]
    names = ", ".join(runs)
    if not runs:
        raise UsageError(f"Task {agent_id} has recorded no run of an agent, so it has no turns.")
    if run is None and len(runs) > 1:
        raise UsageError(f"Task {agent_id} has several runs; name one with run=: {names}.")
    if run is not None and run not in runs:
        raise UsageError(f"Task {agent_id} has no run {run}; it has {names}.")
    return run or runs[0]


def cut_at(
    connection: Connection, agent_id: UUID, run: str | None, turn: int, *, may_follow: bool = True
) -> Cut:
    """Return the cut of a task's journal before a turn.

    `may_follow`: the turn may also be the one after the last that is recorded. Raises UsageError if there is no such turn.
    """
    rows = read_rows(connection, agent_id)
    if turn == 0:
        return Cut(rows, "", 0, ())
    run = choose_run(agent_id, rows, run)
    calls = _read_calls(connection, agent_id, run)
    last = len(calls) + may_follow
    if not 1 <= turn <= last:
        turns = "turn 1" if last == 1 else f"turns 1 to {last}"
        raise UsageError(
            f"Task {agent_id} cannot go on at turn {turn} of {run}: there {'is' if last == 1 else 'are'} {turns}."
        )
    return Cut(rows, run, turn, calls)


def _read_calls(connection: Connection, agent_id: UUID, run: str) -> list[list[str]]:
    """Return the ids of the calls in each response of a run."""
    query = (
        select(JOURNAL.c.value)
        .where(JOURNAL.c.agent_id == agent_id, JOURNAL.c.path == run, JOURNAL.c.kind == FactKind.MODEL)
        .order_by(JOURNAL.c.seq)
    )
    return [call_ids(value) for value in connection.execute(query).scalars()]


def call_ids(response: str) -> list[str]:
    """Return the ids of the calls in a recorded response."""
    return [str(item["call_id"]) for item in output_items(json.loads(response)) if item.get("call_id")]


def output_items(response: Any) -> Iterator[dict[str, Any]]:
    """Yield the output items of a recorded response, streamed or not."""
    if not isinstance(response, dict):
        return
    event = response.get("event")
    source = event.get("response") if isinstance(event, dict) else response
    output = source.get("output") if isinstance(source, dict) else None
    yield from (item for item in output or () if isinstance(item, dict))
