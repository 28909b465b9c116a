"""The statements of the transitions, for many activities each, in the form that a database runs fastest."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import ARRAY, bindparam, func, insert, select, update

from agentexec.activity.models import Activity, ActivityLabel, ActivityLog, ActivityResult
from agentexec.db.columns import id_in
from agentexec.task import Status

ACTIVITY: Any = Activity.__table__
LOG: Any = ActivityLog.__table__
LABEL: Any = ActivityLabel.__table__
RESULT: Any = ActivityResult.__table__

NEW_COLUMNS = (
    *("agent_id", "parent_id", "agent_type", "status", "percentage", "message", "created_at", "updated_at"),
    *(
        "started_at",
        "queue",
        "priority",
        "run_at",
        "epoch",
        "attempt",
        "crashes",
        "idempotency_key",
        "context",
    ),
    "metadata",
)
"""What a new activity is given."""


@functools.cache
def insert_task_statement() -> Any:
    """A task with its first log line and its labels in one statement, which PostgreSQL can.

    Foreign keys are checked at the statement's end, when all of its rows are there.
    """
    task = insert(ACTIVITY).values({n: bindparam(n, type_=ACTIVITY.c[n].type) for n in NEW_COLUMNS})
    given = task.returning(ACTIVITY.c.agent_id, ACTIVITY.c.created_at).cte("task")
    first = (bindparam(name, type_=LOG.c[name].type) for name in ("status", "message", "percentage"))
    line = select(given.c.agent_id, given.c.created_at, *first)
    lists = (
        func.unnest(bindparam(f"label_{of}s", type_=ARRAY(LABEL.c[of].type))) for of in ("name", "value")
    )
    labels = select(given.c.agent_id, *lists, given.c.created_at)
    insert_labels = insert(LABEL).from_select(["agent_id", "name", "value", "created_at"], labels)
    insert_line = insert(LOG).from_select(
        ["activity_id", "created_at", "status", "message", "percentage"], line
    )
    return insert_line.inline().add_cte(insert_labels.cte("labels"))


INSERT_ACTIVITY = insert(ACTIVITY)
INSERT_LOG = insert(LOG).inline()  # without RETURNING, which nobody reads
INSERT_LABEL = insert(LABEL)
INSERT_RESULT = insert(RESULT)
UPDATE_PROGRESS = (
    update(ACTIVITY)
    .where(ACTIVITY.c.agent_id == bindparam("id", type_=ACTIVITY.c.agent_id.type))
    .values(
        message=bindparam("new_message"),
        percentage=func.coalesce(bindparam("new_percentage"), ACTIVITY.c.percentage),
        updated_at=bindparam("now", type_=ACTIVITY.c.updated_at.type),
    )
)


class Statements:
    """Statements on the activities `ids`, in one dialect."""

    def __init__(self, dialect: str) -> None:
        c = ACTIVITY.c
        chosen = id_in(c.agent_id, dialect)
        now = bindparam("now", type_=c.updated_at.type)
        state = (c.agent_id, c.status, c.epoch, c.crashes, c.crashes_in_row)
        self.select_claimed = (
            select(*state, c.agent_type, c.attempt, c.context)
            .where(chosen)
            .order_by(c.agent_id)
            .with_for_update()
        )
        self.select_state = (
            select(*state, c.queue, c.priority).where(chosen).order_by(c.agent_id).with_for_update()
        )
        self.start = (
            update(ACTIVITY)
            .where(chosen)
            .values(
                status=Status.RUNNING,
                epoch=bindparam("new_epoch"),
                attempt=c.attempt + 1,
                crashes=bindparam("new_crashes"),
                crashes_in_row=bindparam("new_in_row"),
                message=bindparam("new_message"),
                started_at=func.coalesce(c.started_at, now),
                updated_at=now,
                error=None,
            )
        )
        self.end = (
            update(ACTIVITY)
            .where(chosen)
            .values(
                status=bindparam("new_status", type_=c.status.type),
                percentage=func.coalesce(bindparam("new_percentage", type_=c.percentage.type), c.percentage),
                message=bindparam("new_message"),
                error=bindparam("new_error"),
                updated_at=now,
                finished_at=bindparam("finished", type_=c.finished_at.type),
                run_at=bindparam("new_run_at", type_=c.run_at.type),
                attempt=c.attempt - bindparam("uncounted"),
                crashes=c.crashes + bindparam("deaths"),
                crashes_in_row=c.crashes_in_row + bindparam("deaths"),
            )
        )
        self.reset_crashes = update(ACTIVITY).where(chosen).values(crashes=0, crashes_in_row=0)
        self.begin = update(ACTIVITY).where(chosen).values(status=Status.RUNNING, started_at=now)
        # One statement logs the same line for any number of tasks; the percentage is the one just written.
        self.insert_log_lines = insert(LOG).from_select(
            ["activity_id", "created_at", "status", "message", "percentage"],
            select(c.agent_id, now, c.status, c.message, c.percentage).where(chosen),
        )


@functools.cache
def statements(dialect: str) -> Statements:
    """The statements of a dialect, made once."""
    return Statements(dialect)
