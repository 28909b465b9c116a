"""Restarts: the journal of a run that the code at hand cannot replay becomes history, and the run begins with nothing.

History has one fact of its own for each run at GIVEN_UP_PATH, which says why and when it was given up. If the agents are
to know what took effect, the new journal begins with a fact at RESTART_PATH, which has the messages of a fork.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, insert, literal, select, update

from agentexec.activity.changes.progress import add_log_lines
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.journal.cuts import Cut, read_rows
from agentexec.journal.facts import FactKind
from agentexec.journal.forks import Change, Fork, dump_fork, load_fork, next_run, truncate
from agentexec.journal.given_up import GIVEN_UP_PATH, HISTORY
from agentexec.journal.store import JOURNAL, require_lease
from agentexec.task import Lease
from agentexec.values.presentation import shorten

RESTART_PATH = "/restart"
"""Place of the fact with the messages. No run or call has a path that begins with a slash."""

DIVERGENCE_PATH = "/divergence"
"""Place of the question whether to restart."""

GIVEN_UP_KIND = "restart"

MAX_CALLS = 50
"""Calls of a run that its agent is told about: the latest ones."""

MAX_TOLD = 500
"""Characters of the arguments of such a call, and of its outcome."""


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
