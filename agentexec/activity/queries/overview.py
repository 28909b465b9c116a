"""Overview of a deployment: queued and running tasks, tasks ended per minute, and worker processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator
from sqlalchemy import ColumnElement, Select, case, false, func, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, WorkerProcess, queues_of, read_queues
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.activity.schemas import UsageSchema, valid_usage
from agentexec.arguments.checks import check_integer
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.llm.prices import compute_cost
from agentexec.task import Status

REPORT_SECONDS = 5.0
"""Seconds between two reports of a worker process."""

LOST_SECONDS = 4 * REPORT_SECONDS
"""Seconds without a report after which a worker process counts as lost, or cannot reach the database."""

FORGET_SECONDS = 600.0
"""Seconds without a report after which a worker process is no longer shown."""

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
            return (
                row
                if isinstance(row.get("queues"), list)
                else {**row, "queues": read_queues(row["queue"], row.get("queues"))}
            )
        names = [name for name in cls.model_fields if name != "queues"]
        return {**{name: getattr(row, name) for name in names}, "queues": queues_of(row)}


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


@sync_or_async
def overview(
    db: Session, minutes: int = 30, *, metadata_filter: Mapping[str, Any] | None = None
) -> OverviewSchema:
    """Return the queued, running and recently ended tasks, and the worker processes. Runs one statement.

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
    in_scope = metadata_conditions(metadata_filter)
    recent = _ended_per_minute(now, minutes, in_scope).subquery()
    numbers = [
        select(func.count())
        .select_from(Activity)
        .where(Activity.status == status, *in_scope)
        .scalar_subquery()
        .label(f"now_{status.value}")
        for status in (Status.QUEUED, Status.RUNNING)
    ]
    oldest = oldest_queued(now, in_scope).scalar_subquery().label("oldest")
    workers: Any = WorkerProcess.__table__
    forget = timedelta(seconds=FORGET_SECONDS)
    present = workers.c.seen_at.between(now - forget, now + forget)
    rows = (
        db.execute(
            select(*numbers, oldest, recent, *workers.c)
            .select_from(recent)
            .join(workers, present if metadata_filter is None else false(), isouter=True)
            .order_by(workers.c.host, workers.c.pid)
        )
        .mappings()
        .all()
    )
    first = rows[0]
    return OverviewSchema(
        at=now,
        queued=first["now_queued"],
        running=first["now_running"],
        oldest_queued_at=first["oldest"],
        done_per_minute=[int(first[f"done_{ago}"] or 0) for ago in range(minutes, 0, -1)],
        failed_per_minute=[int(first[f"failed_{ago}"] or 0) for ago in range(minutes, 0, -1)],
        workers=[WorkerSchema.model_validate(dict(row)) for row in rows if row["worker_id"] is not None],
    )


def workers(db: Session) -> list[WorkerSchema]:
    """Return the worker processes of all queues; those that have not reported for ten minutes are left out."""
    table: Any = WorkerProcess.__table__
    now, forget = utc_now(), timedelta(seconds=FORGET_SECONDS)
    present = table.c.seen_at.between(now - forget, now + forget)
    rows = db.execute(select(table).where(present).order_by(table.c.host, table.c.pid)).mappings()
    return [WorkerSchema.model_validate(dict(row)) for row in rows]


def _ended_per_minute(
    now: datetime, minutes: int, in_scope: list[ColumnElement[bool]]
) -> Select[*tuple[Any, ...]]:
    """Return a query of one row: `done_1` and `failed_1` for the last minute, `done_2` for the one before, and so on."""
    columns = []
    for ago in range(minutes, 0, -1):
        since, until = now - timedelta(minutes=ago), now - timedelta(minutes=ago - 1)
        within = (Activity.finished_at > since) & (Activity.finished_at <= until)
        for name, status in (("done", Status.COMPLETE), ("failed", Status.ERROR)):
            hit = case((within & (Activity.status == status), 1), else_=0)
            columns.append(func.sum(hit).label(f"{name}_{ago}"))
    return select(*columns).where(Activity.finished_at > now - timedelta(minutes=minutes), *in_scope)


def oldest_queued(now: datetime, in_scope: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return a query of the creation time of the oldest queued task that may start at a moment."""
    may_start = func.coalesce(Activity.run_at, Activity.created_at) <= now
    return (
        select(Activity.created_at)
        .where(Activity.status == Status.QUEUED, may_start, *in_scope)
        .order_by(Activity.created_at)
        .limit(1)
    )


@sync_or_async
def spent(db: Session, minutes: int = 10, *, metadata_filter: Mapping[str, Any] | None = None) -> SpentSchema:
    """Return tokens and cost of the tasks that ended recently, at most of the newest 5,000.

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
    query = (
        select(Activity.usage)
        .where(
            Activity.finished_at > utc_now() - timedelta(minutes=minutes),
            Activity.requests > 0,
            *metadata_conditions(metadata_filter),
        )
        .order_by(Activity.finished_at.desc())
        .limit(MAX_SUMMED)
    )
    sums: dict[str, dict[str, int]] = {}
    for usage in db.scalars(query):
        for model, used in valid_usage(usage).items():
            sum_of_model = sums.setdefault(model, dict.fromkeys(UsageSchema.model_fields, 0))
            for name in sum_of_model:
                sum_of_model[name] += used.get(name, 0)
    cost = compute_cost(sums, CONF.model_prices, use_list_prices=CONF.list_prices) if sums else 0.0
    total = {name: sum(used[name] for used in sums.values()) for name in UsageSchema.model_fields}
    return SpentSchema(minutes=minutes, usage=UsageSchema(**total), cost=cost)
