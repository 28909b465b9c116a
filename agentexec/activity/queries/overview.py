"""The deployment at a glance: what waits and runs, how much ends each minute, and who works. One statement."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field
from sqlalchemy import case, false, func, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, WorkerProcess
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.activity.schemas import UsageSchema, valid_usage
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.llm.prices import compute_cost
from agentexec.task import Status

REPORT_SECONDS = 5.0
"""Seconds between two reports of a worker process."""

LOST_SECONDS = 4 * REPORT_SECONDS
"""A worker process that has not reported for so long is lost, or cannot reach the database."""

FORGET_SECONDS = 600.0
"""Seconds after which a lost worker process is shown no more."""

MAX_MINUTES = 60
MAX_USED = 5_000


class WorkerSchema(BaseModel):
    """A worker process, as it last reported."""

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    worker_id: str
    queue: str = Field(description="The queue that it serves.")
    host: str
    pid: int
    concurrency: int = Field(description="Tasks that it runs at once, at most.")
    running: int = Field(description="Tasks that it runs now.")
    draining: bool = Field(description="It claims nothing more, as it is about to stop.")
    cpu_percent: float = Field(description="100 is one processor.")
    rss_bytes: int = Field(description="Its memory.")
    started_at: datetime
    seen_at: datetime = Field(description="Its latest report; it is lost after 20 seconds without one.")


class OverviewSchema(BaseModel):
    """What waits, runs and has just ended."""

    model_config = ConfigDict(defer_build=True)

    at: datetime = Field(description="The moment of this look.")
    queued: int = Field(default=0, description="Tasks that wait, also those that may not start yet.")
    running: int = Field(default=0, description="Tasks that run.")
    oldest_queued_at: datetime | None = Field(
        default=None,
        description="When the task was accepted that has waited longest of those that may start.",
    )
    done_per_minute: list[int] = Field(
        default_factory=list,
        description="Tasks that completed, one number a minute; the last one is that of the last 60 seconds.",
    )
    failed_per_minute: list[int] = Field(
        default_factory=list, description="Tasks that ended in ERROR, likewise."
    )
    workers: list[WorkerSchema] = Field(
        default_factory=list,
        description="The worker processes of all queues, lost ones for ten minutes more.",
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def active(self) -> int:
        """Queued and running."""
        return self.queued + self.running


class SpentSchema(BaseModel):
    """What the tasks used that ended in the last minutes."""

    model_config = ConfigDict(defer_build=True)

    minutes: int = Field(description="How many minutes.")
    usage: UsageSchema
    cost: float | None = Field(
        default=None, description="An estimate in dollars; null unless all prices are known."
    )


@sync_or_async
def overview(
    db: Session, minutes: int = 30, *, metadata_filter: Mapping[str, Any] | None = None
) -> OverviewSchema:
    """What waits, runs and has ended in each of the last `minutes` (1 to 60), and the worker processes of all queues.

    `metadata_filter`: of tasks whose metadata has all these values; then without worker processes, which work for all.
    Raises UsageError.
    """
    if not 1 <= minutes <= MAX_MINUTES:
        raise UsageError(f"minutes= is from 1 to {MAX_MINUTES}, not {minutes}.")
    now = utc_now()
    mine = metadata_conditions(metadata_filter)
    counted = select(func.count()).select_from(Activity)
    oldest = (
        select(Activity.created_at)
        .where(
            Activity.status == Status.QUEUED,
            func.coalesce(Activity.run_at, Activity.created_at) <= now,
            *mine,
        )
        .order_by(Activity.created_at)
        .limit(1)
    )
    ended = []
    for ago in range(minutes, 0, -1):
        since, until = now - timedelta(minutes=ago), now - timedelta(minutes=ago - 1)
        within = (Activity.finished_at > since) & (Activity.finished_at <= until)
        for name, status in (("done", Status.COMPLETE), ("failed", Status.ERROR)):
            hit = case((within & (Activity.status == status), 1), else_=0)
            ended.append(func.sum(hit).label(f"{name}_{ago}"))
    recent = select(*ended).where(Activity.finished_at > now - timedelta(minutes=minutes), *mine).subquery()
    numbers = [
        counted.where(Activity.status == status, *mine).scalar_subquery().label(f"now_{status.value}")
        for status in (Status.QUEUED, Status.RUNNING)
    ]
    workers: Any = WorkerProcess.__table__
    present = workers.c.seen_at > now - timedelta(seconds=FORGET_SECONDS)
    rows = (
        db.execute(
            select(*numbers, oldest.scalar_subquery().label("oldest"), recent, *workers.c)
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


@sync_or_async
def spent(db: Session, minutes: int = 10, *, metadata_filter: Mapping[str, Any] | None = None) -> SpentSchema:
    """Tokens and cost of the tasks that ended in the last `minutes`, of at most the 5,000 newest of them."""
    query = (
        select(Activity.usage)
        .where(
            Activity.finished_at > utc_now() - timedelta(minutes=minutes),
            Activity.requests > 0,
            *metadata_conditions(metadata_filter),
        )
        .order_by(Activity.finished_at.desc())
        .limit(MAX_USED)
    )
    sums: dict[str, dict[str, int]] = {}
    for usage in db.scalars(query):
        for model, used in valid_usage(usage).items():
            into = sums.setdefault(model, dict.fromkeys(UsageSchema.model_fields, 0))
            for name in into:
                into[name] += used.get(name, 0)
    price = compute_cost(sums, CONF.model_prices, use_list_prices=CONF.list_prices)
    whole = {name: sum(used[name] for used in sums.values()) for name in UsageSchema.model_fields}
    return SpentSchema(minutes=minutes, usage=UsageSchema(**whole), cost=price)
