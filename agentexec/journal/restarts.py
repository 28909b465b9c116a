"""Restarts: the journal of a run that the code at hand cannot replay becomes history, and the run begins with nothing.

History has one fact of its own for each run at GIVEN_UP_PATH, which says why and when it was given up. If the agents are
to know what took effect, the new journal begins with a fact at RESTART_PATH, which has the messages of a fork.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, func, insert, literal, select, update
from sqlalchemy.orm import Session

from agentexec.activity.changes.progress import add_log_lines
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.journal.cuts import Cut, read_rows
from agentexec.journal.facts import FactKind
from agentexec.journal.forks import Change, Fork, dump_fork, load_fork, next_run, truncate
from agentexec.journal.models import JournalHistory
from agentexec.journal.store import JOURNAL, require_lease
from agentexec.task import Lease
from agentexec.values.presentation import shorten

HISTORY: Any = JournalHistory.__table__

RESTART_PATH = "/restart"
"""Place of the fact with the messages. No run or call has a path that begins with a slash."""

GIVEN_UP_PATH = "/given-up"
"""Place of the fact in the history."""

DIVERGENCE_PATH = "/divergence"
"""Place of the question whether to restart."""

GIVEN_UP_KIND = "restart"

MAX_CALLS = 50
"""Calls of a run that its agent is told about: the latest ones."""

MAX_TOLD = 500
"""Characters of the arguments of such a call, and of its outcome."""


class GivenUpRun(NamedTuple):
    """A run of a task that was given up for a new one."""

    number: int
    at: datetime
    version: str | None
    """Version of the code that could not replay it."""
    reason: str
    facts: int
    """The number of facts that history has of it."""


def given_up_runs(db: Session | Connection, agent_id: UUID) -> list[GivenUpRun]:
    """Return the runs of a task that were given up, oldest first."""
    mine = HISTORY.c.agent_id == agent_id
    query = select(HISTORY).where(mine, HISTORY.c.path == GIVEN_UP_PATH).order_by(HISTORY.c.run)
    rows = db.execute(query).all()
    if not rows:
        return []
    counts = select(HISTORY.c.run, func.count().label("number")).where(mine).group_by(HISTORY.c.run)
    numbers = {row.run: row.number - 1 for row in db.execute(counts)}
    return [_given_up_run(row, numbers.get(row.run, 0)) for row in rows]


def _given_up_run(row: Any, facts: int) -> GivenUpRun:
    value = json.loads(row.value)
    return GivenUpRun(row.run, row.created_at, value.get("version"), str(value.get("reason", "")), facts)


def read_given_up(engine: Engine, agent_id: UUID) -> list[GivenUpRun]:
    """Return the runs of a task that were given up. Raises UnavailableError."""
    with reading(engine) as connection:
        return given_up_runs(connection, agent_id)


@retry_on_deadlock
def give_up(
    engine: Engine,
    lease: Lease,
    reason: str,
    version: str | None,
    line: str,
    now: datetime,
    *,
    tells_effects: bool,
) -> None:
    """Move the journal of a task to its history, with the reason and a line of the task's log.

    A second call by the same attempt is safe: the commit of the first one may not have been confirmed.

    Args:
        engine: Engine of the record.
        lease: Lease of the attempt that cannot replay the journal.
        reason: Sentence that says where it diverged.
        version: Version of this attempt's code.
        line: Line of the task's log.
        now: The present moment.
        tells_effects: Leave messages for the agents about the calls that took effect.

    Raises:
        LeaseLostError: Another worker has the task.
        UnavailableError: The database cannot be reached.
    """
    agent_id = lease.agent_id
    with writing(engine) as connection:
        require_lease(connection, lease)
        mine = HISTORY.c.agent_id == agent_id
        known = select(HISTORY.c.epoch).where(mine, HISTORY.c.path == GIVEN_UP_PATH)
        if lease.epoch in connection.execute(known).scalars():
            return
        run = next_run(connection, agent_id)
        columns = [column for column in JOURNAL.c if column.name != "agent_id"]
        journal = select(literal(agent_id, JOURNAL.c.agent_id.type), literal(run), *columns)
        journal = journal.where(JOURNAL.c.agent_id == agent_id)
        names = ["agent_id", "run", *(column.name for column in columns)]
        connection.execute(insert(HISTORY).from_select(names, journal))
        value = json.dumps({"reason": reason, "version": version}, ensure_ascii=False)
        given_up = {"path": GIVEN_UP_PATH, "seq": 0, "kind": GIVEN_UP_KIND, "input_hash": "", "value": value}
        place = {"agent_id": agent_id, "epoch": lease.epoch, "created_at": now}
        connection.execute(insert(HISTORY).values(run=run, **place, **given_up))
        changes = tuple(_messages(connection, agent_id)) if tells_effects else ()
        truncate(connection, agent_id, Cut(read_rows(connection, agent_id), "", 0, ()), run)
        if changes:
            message = {"path": RESTART_PATH, "seq": 0, "kind": FactKind.FORK, "input_hash": ""}
            connection.execute(insert(JOURNAL).values(**place, **message, value=dump_fork(Fork((), changes))))
        connection.execute(update(ACTIVITY).where(ACTIVITY.c.agent_id == agent_id).values(version=None))
        add_log_lines(connection, {agent_id: [line]}, now)


def _messages(connection: Connection, agent_id: UUID) -> Iterator[Change]:
    """Yield a message for each run at the top of the handler whose calls have, or may have, taken effect."""
    query = select(JOURNAL.c.path, JOURNAL.c.kind, JOURNAL.c.value).where(JOURNAL.c.agent_id == agent_id)
    calls: dict[str, list[Any]] = {}
    lines: dict[str, list[str]] = {}
    for row in connection.execute(query.order_by(JOURNAL.c.epoch, JOURNAL.c.created_at, JOURNAL.c.seq)):
        calls.setdefault(row.path, []).append(row)
    for path, rows in calls.items():
        if path == RESTART_PATH:
            # What the run before this one did, and this run was told.
            for change in load_fork(rows[0].value).changes:
                lines.setdefault(change.run, []).extend((change.input or "").splitlines()[1:])
        elif rows[0].kind == FactKind.RUN and "/" not in path:
            lines.setdefault(path, [])
        elif rows[0].kind == FactKind.INTENT and (run := path.partition("/")[0]) in lines:
            lines[run].append(_call_line(json.loads(rows[0].value), rows[-1]))
    for run, told in lines.items():
        if told:
            yield Change(run, 1, input="\n".join([INTRODUCTION, *told[-MAX_CALLS:]]))


INTRODUCTION = (
    "An earlier run of this task was given up because its code has changed. These calls were made in it, and have taken "
    "effect; do not make a call again that must not take effect twice:"
)


def _call_line(intent: Mapping[str, Any], latest: Any) -> str:
    """Return a call and its outcome in one line."""
    call = f"{intent.get('name')}({_text(intent.get('arguments'))})"
    if latest.kind == FactKind.OUTCOME:
        value = json.loads(latest.value)
        parts = [
            name for name in ("text", "json", "part", "parts") if isinstance(value, dict) and name in value
        ]
        outcome = _text(value[parts[0]] if parts else value)
    elif latest.kind == FactKind.RAISED:
        outcome = "it raised an error"
    else:
        outcome = "it was cut off, and may have taken effect"
    return f"- {call}: {outcome}".replace("\n", " ")


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shorten(text, MAX_TOLD, "cut off")
