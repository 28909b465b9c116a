"""New tasks in one statement, on PostgreSQL: any number of them, with their first log lines, labels and queue entries."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Dialect, Engine

from agentexec.activity.changes.new_tasks import NewTask, activity_rows
from agentexec.activity.changes.statements import ACTIVITY, LABEL, LOG
from agentexec.activity.queries.labels import label_rows
from agentexec.db.lock_limits import transaction_limits
from agentexec.db.round_trips import run_transactions
from agentexec.db.row_source import Types, row_source
from agentexec.payloads.sealing import seal
from agentexec.state.answers import PushStatement

NEW_COLUMNS = (
    "agent_id",
    "parent_id",
    "agent_type",
    "status",
    "percentage",
    "message",
    "created_at",
    "updated_at",
    "started_at",
    "queue",
    "priority",
    "run_at",
    "epoch",
    "attempt",
    "crashes",
    "idempotency_key",
    "lock_key",
    "concurrency_key",
    "fairness_key",
    "fairness_weight",
    "context",
    "metadata",
    "trace_context",
    "expires_at",
    "debounce_key",
    "webhook",
    "budget",
)
"""Columns of a new activity."""

_LABELS = f""", labels AS (
    INSERT INTO {LABEL.name} (agent_id, name, value, created_at)
    SELECT agent_id, label ->> 0, label ->> 1, created_at FROM given, json_array_elements(labels) AS label
)"""  # noqa: S608 - the name of our table


def insert_in_one_statement(
    engine: Engine, tasks: Sequence[NewTask], now: datetime, push: PushStatement | None
) -> bool:
    """Add tasks, and push them; the statement is a transaction by itself. Return whether the push has woken workers."""
    rows = activity_rows(tasks, now)
    for row, task in zip(rows, tasks, strict=True):
        context = None if row["context"] is None else seal(row["context"])
        row |= {
            "agent_id": task.agent_id.hex,
            "status": task.status.name,
            "labels": label_rows(task.metadata),
            "context": context,
        }
    source = row_source("task", rows, _types(engine.dialect))
    values: dict[str, Any] = {**source.values, **(push.values if push else {})}
    has_labels = any(row["labels"] for row in rows)
    statement = _insert_statement(source.sql, push.sql if push else None, has_labels)
    # A key may be taken by a transaction that is still open, and whose process may be frozen.
    waits = any(task.idempotency_key is not None for task in tasks)
    limits = [(f"SELECT {transaction_limits(engine.dialect)}", {})] * waits
    # The notification in a transaction of its own: its commit holds a lock of the whole server, and waits for no disk.
    _, has_woken = run_transactions(engine, [*limits, (statement, values)], push.wake if push else None)
    if push is not None and has_woken:
        push.note_woken()
    return has_woken


@functools.cache
def _types(dialect: Dialect) -> Types:
    columns = [(name, ACTIVITY.c[name].type.compile(dialect)) for name in NEW_COLUMNS]
    return (*columns, ("labels", "json"))


@functools.lru_cache(maxsize=128)
def _insert_statement(source: str, push: str | None, has_labels: bool) -> str:
    """Return the statement. Foreign keys are checked at its end, when all of its rows are there."""
    columns = ", ".join(NEW_COLUMNS)
    pushed = "" if push is None else f", pushed AS ({push})"
    labels = _LABELS if has_labels else ""
    return f"""
WITH given AS MATERIALIZED (
    {source}
), added AS (
    INSERT INTO {ACTIVITY.name} ({columns}) SELECT {columns} FROM given
), line AS (
    INSERT INTO {LOG.name} (activity_id, created_at, status, message, percentage)
    SELECT agent_id, created_at, status, message, percentage FROM given
){labels}{pushed}
SELECT 1
"""  # noqa: S608 - the names of our tables and columns
