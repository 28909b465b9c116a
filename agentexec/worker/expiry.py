"""Expiry: deletes results, event waits, trackers and reports of worker processes that are past their time."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Engine, case, delete, null, or_, select
from sqlalchemy.orm import aliased

from agentexec.activity.models import Activity, ActivityResult, WorkerProcess
from agentexec.activity.queries.overview import FORGET_SECONDS
from agentexec.config import CONF
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.journal import events, trackers
from agentexec.payloads.columns import is_inline, stored
from agentexec.payloads.offloading import remove_values
from agentexec.task import ACTIVE_STATUSES

INTERVAL = 60.0
"""Seconds between two runs."""


class Expiry:
    """Deletes what has expired, every minute."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next = 0.0

    def run_if_due(self, clock: float) -> None:
        """Delete what has expired if the last run is long enough ago; `clock` is monotonic. Raises UnavailableError."""
        if clock >= self._next:
            self._next = clock + INTERVAL
            expire(self._engine, utc_now())


def expire(engine: Engine, now: datetime) -> None:
    """Delete everything that has expired at `now`."""
    for kind in (events, trackers):
        while kind.expire(engine, now, CHUNK_SIZE) == CHUNK_SIZE:
            pass
    with writing(engine) as connection:
        forget = timedelta(seconds=FORGET_SECONDS)
        # Not from the future either: a forged report would count for ever. A live process reports again.
        forgotten = or_(WorkerProcess.seen_at < now - forget, WorkerProcess.seen_at > now + forget)
        connection.execute(delete(WorkerProcess).where(forgotten))
    _expire_results(engine, now)


def _expire_results(engine: Engine, now: datetime) -> None:
    # A task that has enqueued others may run again from its top, and ask for their results again.
    child, parent = aliased(Activity), aliased(Activity)
    wanted = (
        select(child.agent_id)
        .join(parent, parent.agent_id == child.parent_id)
        .where(child.agent_id == ActivityResult.agent_id, parent.status.in_(ACTIVE_STATUSES))
    )
    value = ActivityResult.value
    reference = case((is_inline(value), None), else_=stored(value))
    query = (
        select(ActivityResult.agent_id, reference if CONF.payload_store else null())
        .where(ActivityResult.expires_at < now, ~wanted.exists())
        .limit(CHUNK_SIZE)
    )
    while True:
        with writing(engine) as connection:
            rows = connection.execute(query).all()
            ids = [row[0] for row in rows]
            if ids:
                connection.execute(delete(ActivityResult).where(ActivityResult.agent_id.in_(ids)))
        remove_values([row[1] for row in rows if row[1] is not None])
        if len(ids) < CHUNK_SIZE:
            return
