"""Decisions about progress reports."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

from agentexec.activity.changes.progress import Progress, accepted_reports, latest_reports
from agentexec.task import Status

TASK, OTHER = UUID(int=1), UUID(int=2)


def report(epoch: int | None = 1, percentage: int | None = None, agent_id: UUID = TASK) -> Progress:
    return Progress(agent_id, epoch, "on", percentage, datetime(2030, 1, 1, tzinfo=UTC))


def accepted(status: Status, epoch: int | None) -> bool:
    return bool(accepted_reports([report(epoch)], {TASK: SimpleNamespace(status=status, epoch=1)}))


def test_only_the_worker_that_has_the_task_reports_on_it() -> None:
    assert accepted(Status.RUNNING, 1)
    assert not accepted(Status.RUNNING, 2)
    assert not accepted(Status.QUEUED, 1)


def test_a_report_from_outside_counts_until_the_activity_has_ended() -> None:
    assert accepted(Status.QUEUED, None)
    assert accepted(Status.RUNNING, None)
    assert not accepted(Status.COMPLETE, None)
    assert accepted_reports([report(None)], {}) == [], "an unknown activity"


def test_the_last_report_keeps_the_last_percentage() -> None:
    latest = latest_reports([report(percentage=10), report(percentage=20), report(), report(agent_id=OTHER)])
    assert [(item.agent_id, item.percentage) for item in latest] == [(TASK, 20), (OTHER, None)]
