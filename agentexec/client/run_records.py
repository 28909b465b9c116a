"""Records of runs: what one task was asked, recorded and answered, as data that can be kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, and_, exists, insert, or_, select

from agentexec.activity.changes.new_tasks import NewTask, activity_rows, insert_ended_task
from agentexec.activity.changes.statements import ACTIVITY, INSERT_ACTIVITY, RESULT
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.db.clock import utc_now
from agentexec.errors import ActivityNotFoundError, UsageError
from agentexec.journal.facts import ANY_INPUT, Fact, FactKind
from agentexec.journal.forks import FORK_PATH
from agentexec.journal.question_rows import APPROVAL, OF_PRESENT_RUN
from agentexec.journal.questions import PENDING
from agentexec.journal.store import JOURNAL
from agentexec.task import Status

FORMAT, VERSION = "agentexec-run", 1

RunRecord = dict[str, Any]
"""A record as JSON data; its fields are those of docs/guides/replay-tests.md."""

APPROVAL_FIELDS = (
    "path",
    "seq",
    "call_id",
    "kind",
    "tool",
    "arguments",
    "status",
    "message",
    "decided_arguments",
)


def read_run(
    connection: Connection,
    agent_id: UUID,
    present: Callable[[Any], Any],
    metadata_filter: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Return the record of a task; `present` returns a JSON value without secrets.

    If that changes anything, the hashes of inputs are left out, because they belong to what was there before.
    Raises ActivityNotFoundError, and UsageError for a task that has recorded nothing.
    """
    query = select(ACTIVITY, RESULT.c.value.label("result_text")).outerjoin(
        RESULT, RESULT.c.agent_id == ACTIVITY.c.agent_id
    )
    chosen = (ACTIVITY.c.agent_id == agent_id, *metadata_conditions(metadata_filter))
    row = connection.execute(query.where(*chosen)).one_or_none()
    if row is None:
        raise ActivityNotFoundError(agent_id)
    facts = _read_facts(connection, agent_id)
    if not facts:
        raise UsageError(f"Task {agent_id} has recorded no steps, so there is nothing to replay.")
    shown = [{**fact, "value": present(fact["value"])} for fact in facts]
    context = None if row.context is None else json.loads(row.context)
    result = None if row.result_text is None else json.loads(row.result_text)
    approvals = _read_approvals(connection, agent_id)
    redacted = present(context) != context or shown != facts
    if redacted:
        shown = [{**fact, "input_hash": ANY_INPUT} for fact in shown]
    return {
        "format": FORMAT,
        "version": VERSION,
        "agent_id": str(agent_id),
        "task": row.agent_type,
        "status": row.status.name,
        "redacted": redacted,
        "context": present(context),
        "result": present(result),
        "facts": shown,
        "approvals": present(approvals),
        "children": _read_children(connection, agent_id, present),
        "inputs": {},
    }


def check_run(record: Any, source: str) -> RunRecord:
    """Return a record that was read from a file. Raises UsageError if it is none, or of a later release."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UsageError(f"{source} is not a run that `agentexec export` has written.")
    if record.get("version") != VERSION:
        raise UsageError(
            f"{source} has version {record.get('version')!r} of the format; this release reads version {VERSION}."
        )
    try:
        UUID(record["agent_id"])
        run_facts(record)
        dict(record["inputs"]), list(record["approvals"]), list(record["children"])
        record["task"], record["context"], record["result"], Status[record["status"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{source} is damaged ({type(error).__name__}: {error}).") from None
    return record


def dump_run(record: RunRecord) -> str:
    """Return a record as the text of a file, which is the same for the same record."""
    return json.dumps(record, ensure_ascii=False, indent=1) + "\n"


def find_runs(
    connection: Connection,
    since: datetime,
    task_name: str | None,
    metadata_filter: Mapping[str, Any] | None,
    limit: int,
) -> Sequence[Any]:
    """Return id, name and status of tasks with recorded steps that are open, or that have completed since."""
    is_open = ACTIVITY.c.status.in_((Status.QUEUED, Status.RUNNING))
    is_recent = and_(ACTIVITY.c.status == Status.COMPLETE, ACTIVITY.c.finished_at >= since)
    conditions = [
        or_(is_open, is_recent),
        exists().where(JOURNAL.c.agent_id == ACTIVITY.c.agent_id),
        *metadata_conditions(metadata_filter),
    ]
    if task_name is not None:
        conditions.append(ACTIVITY.c.agent_type == task_name)
    query = select(ACTIVITY.c.agent_id, ACTIVITY.c.agent_type, ACTIVITY.c.status).where(*conditions)
    return connection.execute(query.order_by(ACTIVITY.c.created_at.desc()).limit(limit)).all()


def run_facts(record: RunRecord) -> list[Fact]:
    """Return the facts of a record."""
    return [
        Fact(
            fact["path"],
            fact["seq"],
            FactKind(fact["kind"]),
            fact["input_hash"],
            json.dumps(fact["value"], ensure_ascii=False, separators=(",", ":")),
        )
        for fact in record["facts"]
    ]


def write_run(connection: Connection, record: RunRecord, *, any_input: bool) -> NewTask:
    """Write a record into an empty database, as a queued task that has been interrupted; return the task.

    `any_input`: model calls and runs of the replay may have any input, because somebody else compares them.
    """
    agent_id, now = UUID(record["agent_id"]), utc_now()
    task = _row(agent_id, record["task"], record["context"])
    connection.execute(INSERT_ACTIVITY, {**activity_rows([task], now)[0], "epoch": 1})
    facts = run_facts(record)
    called = {fact.path for fact in facts if fact.kind is FactKind.MODEL}
    rows: list[dict[str, Any]] = []
    for fact in facts:
        is_free = fact.kind is FactKind.MODEL or (fact.kind is FactKind.RUN and fact.path in called)
        values = {**fact._asdict(), "agent_id": agent_id, "epoch": 1, "created_at": now}
        rows.append({**values, "input_hash": ANY_INPUT if any_input and is_free else fact.input_hash})
    connection.execute(insert(JOURNAL), rows)
    if record["approvals"]:
        connection.execute(
            insert(APPROVAL),
            [
                {
                    **{name: approval.get(name) for name in APPROVAL_FIELDS},
                    "agent_id": agent_id,
                    "created_at": now,
                }
                for approval in record["approvals"]
            ],
        )
    for child in record["children"]:
        _write_child(connection, child, now)
    return task


def _write_child(connection: Connection, child: Mapping[str, Any], now: datetime) -> None:
    task = _row(UUID(child["agent_id"]), child["task"], None)
    result = None if child["result"] is None else json.dumps(child["result"])
    insert_ended_task(connection, task, Status[child["status"]], result, now)


def _row(agent_id: UUID, name: str, context: Any) -> NewTask:
    text = None if context is None else json.dumps(context, ensure_ascii=False)
    return NewTask(agent_id, name, text, None, 1, None, None, None, "Replayed.")


def _read_facts(connection: Connection, agent_id: UUID) -> list[dict[str, Any]]:
    query = (
        select(JOURNAL.c.path, JOURNAL.c.seq, JOURNAL.c.kind, JOURNAL.c.input_hash, JOURNAL.c.value)
        .where(JOURNAL.c.agent_id == agent_id, JOURNAL.c.path != FORK_PATH)
        .order_by(JOURNAL.c.epoch, JOURNAL.c.created_at, JOURNAL.c.path, JOURNAL.c.seq)
    )
    return [{**row._asdict(), "value": json.loads(row.value)} for row in connection.execute(query)]


def _read_approvals(connection: Connection, agent_id: UUID) -> list[dict[str, Any]]:
    columns = [APPROVAL.c[name] for name in APPROVAL_FIELDS]
    decided = APPROVAL.c.agent_id == agent_id, APPROVAL.c.status != PENDING, OF_PRESENT_RUN
    query = select(*columns).where(*decided)
    return [row._asdict() for row in connection.execute(query.order_by(APPROVAL.c.path, APPROVAL.c.seq))]


def _read_children(
    connection: Connection, agent_id: UUID, present: Callable[[Any], Any]
) -> list[dict[str, Any]]:
    """Return the children that have ended, whose results the task may have got."""
    query = (
        select(ACTIVITY.c.agent_id, ACTIVITY.c.agent_type, ACTIVITY.c.status, RESULT.c.value)
        .outerjoin(RESULT, RESULT.c.agent_id == ACTIVITY.c.agent_id)
        .where(ACTIVITY.c.parent_id == agent_id)
        .order_by(ACTIVITY.c.created_at, ACTIVITY.c.agent_id)
    )
    return [
        {
            "agent_id": str(row.agent_id),
            "task": row.agent_type,
            "status": row.status.name,
            "result": None if row.value is None else present(json.loads(row.value)),
        }
        for row in connection.execute(query)
        if row.status.final
    ]
