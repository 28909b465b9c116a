"""Progress reports: which of them the record takes, and their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, update

from agentexec.activity.changes.new_tasks import log_row
from agentexec.activity.changes.statements import ACTIVITY, INSERT_LOG, UPDATE_PROGRESS, statements_for
from agentexec.task import ACTIVE_STATUSES, Status


class Progress(NamedTuple):
    """A progress report. `epoch` None: from outside a worker, accepted while the activity is active."""

    agent_id: UUID
    epoch: int | None
    message: str
    percentage: int | None
    at: datetime


def accepted_reports(progress: Sequence[Progress], rows: Mapping[UUID, Any]) -> list[Progress]:
    """Return the reports on active activities, without those of a worker that no longer has the task."""
    return [
        report
        for report in progress
        if (row := rows.get(report.agent_id)) is not None
        and row.status in ACTIVE_STATUSES
        and (report.epoch is None or (row.status is Status.RUNNING and row.epoch == report.epoch))
    ]


def latest_reports(accepted: Sequence[Progress]) -> list[Progress]:
    """Return the last report of each activity, with the last percentage that was reported for it."""
    latest: dict[UUID, Progress] = {}
    for report in accepted:
        before = latest.get(report.agent_id)
        if report.percentage is None and before is not None:
            report = report._replace(percentage=before.percentage)
        latest[report.agent_id] = report
    return list(latest.values())


def write_progress(connection: Connection, accepted: Sequence[Progress], rows: Mapping[UUID, Any]) -> None:
    """Write accepted reports: a log line for each, and the activity's message and percentage."""
    if not accepted:
        return
    # An activity that the application runs by itself starts with its first report.
    begun = {
        report.agent_id
        for report in accepted
        if rows[report.agent_id].queue is None and rows[report.agent_id].status is Status.QUEUED
    }
    if begun:
        connection.execute(statements_for(connection).begin, {"ids": list(begun), "now": accepted[0].at})
    connection.execute(
        INSERT_LOG,
        [
            log_row(
                report.agent_id,
                report.at,
                Status.RUNNING if report.agent_id in begun else rows[report.agent_id].status,
                report.message,
                report.percentage,
            )
            for report in accepted
        ],
    )
    connection.execute(
        UPDATE_PROGRESS,
        [
            {
                "id": report.agent_id,
                "new_message": report.message,
                "new_percentage": report.percentage,
                "now": report.at,
            }
            for report in latest_reports(accepted)
        ],
    )


def add_log_lines(connection: Connection, agent_id: UUID, lines: Sequence[str], now: datetime) -> None:
    """Add lines to the log of a task whose row is locked; the last one is its message."""
    if not lines:
        return
    mine = ACTIVITY.c.agent_id == agent_id
    task = connection.execute(select(ACTIVITY.c.status, ACTIVITY.c.percentage).where(mine)).one()
    connection.execute(update(ACTIVITY).where(mine).values(message=lines[-1], updated_at=now))
    rows = [log_row(agent_id, now, task.status, line, task.percentage) for line in lines]
    connection.execute(INSERT_LOG, rows)
