"""Statements that change many activities at once, in the form that a database runs fastest."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import Boolean, Connection, bindparam, case, func, insert, literal, select, update

from agentexec.activity.models import Activity, ActivityLabel, ActivityLog, ActivityResult, FollowUp
from agentexec.db.columns import id_in
from agentexec.payloads.columns import stored
from agentexec.task import Status

ACTIVITY: Any = Activity.__table__
LOG: Any = ActivityLog.__table__
LABEL: Any = ActivityLabel.__table__
RESULT: Any = ActivityResult.__table__

FOLLOW_UP: Any = FollowUp.__table__

FOLLOW_UP_COLUMNS = ("agent_id", "queue", "created_at", "is_failure")
LOG_COLUMNS = ("activity_id", "created_at", "status", "message", "percentage")

INSERT_ACTIVITY = insert(ACTIVITY)
INSERT_LOG = insert(LOG).inline()  # without RETURNING, whose rows nobody reads
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
        keys = (c.priority, c.fairness_key, c.fairness_weight, c.lock_key, c.concurrency_key, c.held_lock)
        # These two, and `select_free_state`, do not wait for rows that another process has locked, which may be frozen.
        self.select_claimed = (
            select(*state, c.agent_type, c.attempt, stored(c.context), c.queue, c.started_at, c.expires_at)
            .add_columns(c.updated_at, c.run_at, c.trace_context, c.debounce_key, c.budget, c.version, *keys)
            .where(chosen)
            .order_by(c.agent_id)
            .with_for_update(skip_locked=True)
        )
        self.select_crashed = (
            select(*state, c.queue, c.agent_type)
            .where(chosen)
            .order_by(c.agent_id)
            .with_for_update(skip_locked=True)
        )
        states = select(*state, c.queue, c.webhook, c.agent_type, *keys).where(chosen).order_by(c.agent_id)
        self.select_state = states.with_for_update()
        self.select_free_state = states.with_for_update(skip_locked=True)
        self.select_known = select(c.agent_id).where(chosen)
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
                held_lock=c.lock_key,
                updated_at=now,
                expires_at=None,
                error=None,
                version=func.coalesce(c.version, bindparam("new_version")),
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
                # A final status frees the lock; an attempt that will be followed by another one keeps it.
                held_lock=case((bindparam("ends", type_=Boolean), None), else_=c.held_lock),
                expires_at=None,
                attempt=c.attempt - bindparam("uncounted"),
                crashes=c.crashes + bindparam("more_crashes"),
                crashes_in_row=c.crashes_in_row + bindparam("more_crashes"),
            )
        )
        self.begin_again = update(ACTIVITY).where(chosen).values(crashes=0, crashes_in_row=0, version=None)
        self.begin = update(ACTIVITY).where(chosen).values(status=Status.RUNNING, started_at=now)
        # One statement logs the same line for any number of tasks, with the percentage that was just written.
        self.insert_log_lines = insert(LOG).from_select(
            LOG_COLUMNS,
            select(c.agent_id, now, c.status, c.message, c.percentage).where(chosen),
        )
        # A failure of any task may have handlers, which only its workers know. An activity of an application has no queue.
        self.follow_failures = _insert_follow_ups(now, True, chosen, c.queue.is_not(None))
        self.follow_others = _insert_follow_ups(
            now, False, chosen, c.queue.is_not(None), c.webhook.is_not(None)
        )


def _insert_follow_ups(now: Any, is_failure: bool, *conditions: Any) -> Any:
    chosen = select(ACTIVITY.c.agent_id, ACTIVITY.c.queue, now, literal(is_failure)).where(*conditions)
    return insert(FOLLOW_UP).from_select(FOLLOW_UP_COLUMNS, chosen).inline()


def statements_for(connection: Connection) -> Statements:
    """Return the statements in the dialect of a connection."""
    return _statements(connection.dialect.name)


@functools.cache
def _statements(dialect: str) -> Statements:
    return Statements(dialect)
