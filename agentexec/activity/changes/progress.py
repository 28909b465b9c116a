"""Progress reports: which of them the record takes, and their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from agentexec.activity.changes.new_tasks import log_row, one_or_many
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


def add_log_lines(connection: Connection, lines: Mapping[UUID, Sequence[str]], now: datetime) -> None:
    """Add lines to the logs of tasks whose rows are locked; the last one of each is its message."""
    lines = {agent_id: its_lines for agent_id, its_lines in lines.items() if its_lines}
    if not lines:
        return
    query = select(ACTIVITY.c.agent_id, ACTIVITY.c.status, ACTIVITY.c.percentage)
    tasks = list(connection.execute(query.where(ACTIVITY.c.agent_id.in_(list(lines)))))
    changes = {"new_percentage": None, "now": now}
    messages = [{"id": task.agent_id, "new_message": lines[task.agent_id][-1], **changes} for task in tasks]
    rows = [
        log_row(task.agent_id, now, task.status, line, task.percentage)
        for task in tasks
        for line in lines[task.agent_id]
    ]
    connection.execute(UPDATE_PROGRESS, one_or_many(messages))
    connection.execute(INSERT_LOG, one_or_many(rows))
