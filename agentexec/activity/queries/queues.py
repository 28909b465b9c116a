"""Queues of a deployment: how many tasks they have, how fast these end, who serves them, which are paused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field
from sqlalchemy import Engine, and_, case, func, or_, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, WorkerProcess, queues_of
from agentexec.activity.queries.overview import LOST_SECONDS
from agentexec.activity.queries.pauses import PauseSchema, pauses_of
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.arguments.checks import check_integer
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.task import ACTIVE_STATUSES, Status

WORKER: Any = WorkerProcess.__table__

MAX_MINUTES = 60


class QueueSchema(BaseModel):
    """Queue, as the record has it."""

    model_config = ConfigDict(defer_build=True)

    name: str
    at: datetime = Field(description="Time of the query.")
    ready: int = Field(default=0, description="Number of queued tasks that may start now.")
    delayed: int = Field(
        default=0, description="Number of queued tasks that may start later, or wait for something."
    )
    running: int = Field(default=0, description="Number of running tasks.")
    oldest_ready_at: datetime | None = Field(
        default=None, description="Time since which the oldest of the ready tasks could start."
    )
    ended_per_minute: float = Field(
        default=0.0, description="Tasks that ended per minute, over the last minutes."
    )
    workers: int = Field(default=0, description="Number of live worker processes that serve it.")
    pause: PauseSchema | None = Field(default=None, description="Its pause; null if it is not paused.")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def oldest_age(self) -> float | None:
        """Seconds for which the oldest of the ready tasks could have started; null without one."""
        return (
            None
            if self.oldest_ready_at is None
            else max(0.0, (self.at - self.oldest_ready_at).total_seconds())
        )


@sync_or_async
def list_queues(db: Session, *, minutes: int = 5) -> list[QueueSchema]:
    """Return all queues that have tasks or workers, are paused, or are named by the settings of this process.

    Args:
        db: Session or AsyncSession on the database of the record.
        minutes: Minutes, 1 to 60, over which the ended tasks are counted.

    Returns:
        The queues by name.

    Raises:
        UsageError: An argument is invalid.
    """
    minutes = check_integer("minutes=", minutes, maximum=MAX_MINUTES)
    now = utc_now()
    found = {name: QueueSchema(name=name, at=now) for name in (CONF.queue_name, *_served())}

    def queue(name: str) -> QueueSchema:
        return found.setdefault(name, QueueSchema(name=name, at=now))

    for row in db.execute(count_by_queue(now)):
        entry = queue(row.queue)
        entry.ready, entry.delayed, entry.running = int(row.ready), int(row.delayed), int(row.running)
        entry.oldest_ready_at = row.oldest
    for name, number in db.execute(_ended(now - timedelta(minutes=minutes))):
        queue(name).ended_per_minute = round(number / minutes, 2)
    for worker in db.execute(_live(now)):
        for name in queues_of(worker):
            queue(name).workers += 1
    for pause in pauses_of(db):
        queue(pause.queue).pause = pause
    return [found[name] for name in sorted(found)]


def live_workers(engine: Engine, queue: str) -> list[str]:
    """Return the ids of the worker processes that serve a queue and have reported lately. Raises UnavailableError."""
    with reading(engine) as connection:
        rows = connection.execute(_live(utc_now())).all()
    return [row.worker_id for row in rows if queue in queues_of(row)]


def _served() -> list[str]:
    return [queue.name for queue in CONF.served_queues]


def count_by_queue(now: datetime) -> Any:
    """Return a query of the numbers of active tasks by queue; an index alone has all that it reads."""
    queued = Activity.status == Status.QUEUED
    ready = and_(queued, or_(Activity.run_at.is_(None), Activity.run_at <= now))
    since = func.coalesce(Activity.run_at, Activity.created_at)
    return (
        select(
            Activity.queue,
            func.sum(case((ready, 1), else_=0)).label("ready"),
            func.sum(case((and_(queued, Activity.run_at > now), 1), else_=0)).label("delayed"),
            func.sum(case((Activity.status == Status.RUNNING, 1), else_=0)).label("running"),
            func.min(case((ready, since))).label("oldest"),
        )
        .where(Activity.status.in_(ACTIVE_STATUSES), Activity.queue.is_not(None))
        .group_by(Activity.queue)
    )


def _ended(since: datetime) -> Any:
    return (
        select(Activity.queue, func.count())
        .where(Activity.finished_at > since, Activity.queue.is_not(None))
        .group_by(Activity.queue)
    )


def _live(now: datetime) -> Any:
    lost = timedelta(seconds=LOST_SECONDS)
    columns = (WORKER.c.worker_id, WORKER.c.queue, WORKER.c.queues)
    return select(*columns).where(WORKER.c.seen_at.between(now - lost, now + lost))
