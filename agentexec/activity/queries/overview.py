"""Overview of a deployment: queued and running tasks, tasks ended per minute, and worker processes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator
from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    case,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, ActivityLabel, WorkerProcess, queues_of, read_queues
from agentexec.activity.queries.budgets import open_windows
from agentexec.activity.queries.detail import numbers_active
from agentexec.activity.queries.filters import since_oldest
from agentexec.activity.queries.labels import residual_label_condition, wanted_labels
from agentexec.activity.queries.recent import select_ended
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.activity.schemas import BudgetSchema, UsageSchema, add_usage
from agentexec.activity.version_reports import VersionReport, read_report
from agentexec.arguments.checks import check_integer
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.llm.prices import compute_cost
from agentexec.task import FINAL_STATUSES, Status

REPORT_SECONDS = 5.0
"""Seconds between two reports of a worker process."""

LOST_SECONDS = 4 * REPORT_SECONDS
"""Seconds without a report after which a worker process counts as lost, or cannot reach the database."""

FORGET_SECONDS = 600.0
"""Seconds without a report after which a worker process is no longer shown."""

MINUTE = timedelta(minutes=1)
MAX_MINUTES = 60
MAX_MINUTES_SPENT = 50 * 366 * 24 * 60
MAX_SUMMED = 5_000
"""Maximum number of tasks whose usage is summed."""


class WorkerSchema(BaseModel):
    """Worker process, as of its latest report."""

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    worker_id: str
    queue: str = Field(description="Queue that it serves, or the first one.")
    queues: list[str] = Field(default_factory=list, description="All queues that it serves.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of its tasks, by name.")
    pinned: bool = Field(
        default=False, description="Whether it runs only what began with these versions, and new tasks."
    )
    host: str
    pid: int
    concurrency: int = Field(description="Maximum number of tasks that it runs at once.")
    running: int = Field(description="Number of tasks that it runs.")
    draining: bool = Field(description="Whether it is about to stop and claims no more tasks.")
    cpu_percent: float = Field(description="CPU usage; 100 is one processor.")
    rss_bytes: int = Field(description="Resident memory in bytes.")
    started_at: datetime
    seen_at: datetime = Field(
        description="Time of its latest report; after 20 seconds without one it is lost."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_queues(cls, row: Any) -> Any:
        """Read the queues of a row, which are JSON, or only one."""
        if isinstance(row, dict):
            if isinstance(row.get("queues"), list):
                return row
            values = {**row, "queues": read_queues(row["queue"], row.get("queues"))}
        else:
            names = [name for name in cls.model_fields if name not in ("queues", "pinned")]
            values = {**{name: getattr(row, name) for name in names}, "queues": queues_of(row)}
        report = read_report(values.get("versions"))
        return {
            **values,
            "versions": {} if report is None else report.tasks,
            "pinned": report is not None and report.is_pinned,
        }

    @property
    def serves(self) -> bool:
        """True while it claims tasks: it has reported lately, and does not drain."""
        return not self.draining and (utc_now() - self.seen_at).total_seconds() < LOST_SECONDS

    def may_run(self, task_name: str, version: str | None) -> bool:
        """Return True if it takes runs of a task that began with a version; None is any."""
        return VersionReport(self.versions, self.pinned, 0.0).may_run(task_name, version)


class OverviewSchema(BaseModel):
    """Queued, running and recently ended tasks, and the worker processes."""

    model_config = ConfigDict(defer_build=True)

    at: datetime = Field(description="Time of the query.")
    queued: int = Field(
        default=0, description="Number of queued tasks, including those that may not start yet."
    )
    running: int = Field(default=0, description="Number of running tasks.")
    oldest_queued_at: datetime | None = Field(
        default=None,
        description="Creation time of the oldest queued task that may start.",
    )
    done_per_minute: list[int] = Field(
        default_factory=list,
        description="Numbers of completed tasks, one per minute; the last one counts the last 60 seconds.",
    )
    failed_per_minute: list[int] = Field(
        default_factory=list, description="Numbers of tasks that ended in ERROR, likewise."
    )
    exact_minutes: int = Field(
        default=0,
        description="Number of the latest minutes in which all tasks are counted. With a metadata filter, the minutes before "
        "may lack some: tasks are then counted among the 10,000 that ended last.",
    )
    workers: list[WorkerSchema] = Field(
        default_factory=list,
        description="Worker processes of all queues; lost ones stay for ten minutes.",
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def active(self) -> int:
        """Number of queued and running tasks."""
        return self.queued + self.running


class SpentSchema(BaseModel):
    """Usage and cost of the tasks that ended in the last minutes."""

    model_config = ConfigDict(defer_build=True)

    minutes: int = Field(description="Length of the time span in minutes.")
    usage: UsageSchema
    cost: float | None = Field(
        default=None, description="Estimated cost in dollars; null if a model that was used has no price."
    )
    budgets: list[BudgetSchema] = Field(
        default_factory=list,
        description="Shared budgets of the present periods; none for a caller who sees some tasks only.",
    )


@sync_or_async
def overview(
    db: Session, minutes: int = 30, *, metadata_filter: Mapping[str, Any] | None = None
) -> OverviewSchema:
    """Return the queued, running and recently ended tasks, and the worker processes.

    Args:
        db: Session or AsyncSession on the database of the record.
        minutes: Minutes, 1 to 60, for each of which the ended tasks are counted.
        metadata_filter: Only tasks whose metadata has these values. The overview then has no worker processes, which
            serve all tenants.

    Returns:
        The overview of all queues.

    Raises:
        UsageError: An argument is invalid.
    """
    minutes = check_integer("minutes=", minutes, maximum=MAX_MINUTES)
    now = utc_now()
    active = numbers_active(db, metadata_filter)
    if metadata_filter:
        done, failed, exact = _ended_per_minute_of(db, now, minutes, metadata_filter)
    else:
        (done, failed), exact = _ended_per_minute(db, now, minutes), minutes
    return OverviewSchema(
        at=now,
        queued=active[Status.QUEUED],
        running=active[Status.RUNNING],
        oldest_queued_at=db.scalar(
            oldest_queued_of(now, metadata_filter) if metadata_filter else oldest_queued(now, [])
        ),
        done_per_minute=done,
        failed_per_minute=failed,
        exact_minutes=exact,
        workers=workers(db) if metadata_filter is None else [],
    )


def workers(db: Session) -> list[WorkerSchema]:
    """Return the worker processes of all queues; those that have not reported for ten minutes are left out."""
    table: Any = WorkerProcess.__table__
    now, forget = utc_now(), timedelta(seconds=FORGET_SECONDS)
    present = table.c.seen_at.between(now - forget, now + forget)
    rows = db.execute(select(table).where(present).order_by(table.c.host, table.c.pid)).mappings()
    return [WorkerSchema.model_validate(dict(row)) for row in rows]


def _ended_per_minute(db: Session, now: datetime, minutes: int) -> tuple[list[int], list[int]]:
    """Return the numbers of tasks that ended in COMPLETE and in ERROR in each minute, the oldest one first."""
    moments = {f"ago_{ago}": now - timedelta(minutes=ago) for ago in range(minutes + 1)}
    rows = {row.ago: row for row in db.execute(ended_per_minute(minutes), moments)}
    order = range(minutes, 0, -1)
    return [int(rows[ago].done or 0) for ago in order], [int(rows[ago].failed or 0) for ago in order]


def _ended_per_minute_of(
    db: Session, now: datetime, minutes: int, metadata_filter: Mapping[str, Any]
) -> tuple[list[int], list[int], int]:
    """Return the same of the tasks with some labels, and for how many minutes, up to now, nothing is left out."""
    since = now - timedelta(minutes=minutes)
    columns = (Activity.finished_at, Activity.status)
    query, complete_since = select_ended(db, since, metadata_filter, columns)
    numbers = {status: [0] * minutes for status in FINAL_STATUSES}
    rows: Any = db.execute(query)
    for finished_at, status in rows:
        ago = (now - finished_at) // MINUTE
        if 0 <= ago < minutes and status in numbers:
            numbers[status][minutes - 1 - ago] += 1
    exact = min(minutes, (now - complete_since) // MINUTE)
    return numbers[Status.COMPLETE], numbers[Status.ERROR], exact


@functools.lru_cache(maxsize=MAX_MINUTES)  # building the statement takes longer than running it
def ended_per_minute(minutes: int) -> Any:
    """Return a query of one row for each minute: `ago`, 1 for the last one, and the numbers `done` and `failed`.

    Each minute is a range of an index that has the status too, so every task that ended is read once. The parameters
    are `ago_0`, `ago_1` and so on: the present, a minute ago.
    """
    moments = [bindparam(f"ago_{ago}", type_=Activity.finished_at.type) for ago in range(minutes + 1)]
    numbers = [
        func.sum(case((Activity.status == status, 1), else_=0)).label(name)
        for name, status in (("done", Status.COMPLETE), ("failed", Status.ERROR))
    ]
    parts = []
    for ago in range(minutes, 0, -1):
        within = (Activity.finished_at > moments[ago], Activity.finished_at <= moments[ago - 1])
        parts.append(select(literal(ago).label("ago"), *numbers).where(*within))
    return union_all(*parts)


def oldest_queued(now: datetime, in_scope: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return a query of the creation time of the oldest queued task that may start at a moment."""
    may_start = func.coalesce(Activity.run_at, Activity.created_at) <= now
    return (
        select(Activity.created_at)
        .where(Activity.status == Status.QUEUED, may_start, *in_scope)
        .order_by(Activity.created_at)
        .limit(1)
    )


def oldest_queued_of(now: datetime, metadata_filter: Mapping[str, Any]) -> Select[Any]:
    """Return the same among the tasks with some labels: the first one is searched by, from the oldest queued task on."""
    (name, value), *others = wanted_labels(metadata_filter)
    label: Any = ActivityLabel
    same = (Activity.agent_id == label.agent_id, Activity.created_at == label.created_at)
    may_start = func.coalesce(Activity.run_at, Activity.created_at) <= now
    found = select(literal(1)).where(*same, Activity.status == Status.QUEUED, may_start)
    return (
        select(label.created_at)
        .where(
            label.name == name,
            label.value == value,
            *since_oldest([Status.QUEUED], label.created_at),
            found.scalar_subquery().is_not(None),
            *(residual_label_condition(other, label.agent_id, label.created_at) for other in others),
        )
        .order_by(label.created_at)
        .limit(1)
    )


@sync_or_async
def spent(db: Session, minutes: int = 10, *, metadata_filter: Mapping[str, Any] | None = None) -> SpentSchema:
    """Return tokens and cost of the tasks that ended recently, at most of the newest 5,000.

    They are looked for in the 20,000 tasks that ended last, with a metadata filter in 10,000.

    Args:
        db: Session or AsyncSession on the database of the record.
        minutes: Length of the time span, up to now, in minutes.
        metadata_filter: Only tasks whose metadata has these values.

    Returns:
        The sums over these tasks.

    Raises:
        UsageError: An argument is invalid.
    """
    minutes = check_integer("minutes=", minutes, maximum=MAX_MINUTES_SPENT)
    since = utc_now() - timedelta(minutes=minutes)
    query, _ = select_ended(db, since, metadata_filter, (Activity.usage,), Activity.requests > 0)
    names = tuple(UsageSchema.model_fields)
    sums: dict[str, dict[str, int]] = {}
    for usage in db.scalars(query.limit(MAX_SUMMED)):
        add_usage(sums, usage, names)
    cost = compute_cost(sums, CONF.model_prices, use_list_prices=CONF.list_prices) if sums else 0.0
    total = {name: sum(used[name] for used in sums.values()) for name in UsageSchema.model_fields}
    budgets = [] if metadata_filter else open_windows(db, utc_now())
    return SpentSchema(minutes=minutes, usage=UsageSchema(**total), cost=cost, budgets=budgets)
