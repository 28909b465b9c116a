"""Context and result of one task, and the worker processes of its queue, for people who look after it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, ActivityResult, WorkerProcess, queues_of
from agentexec.activity.queries.overview import FORGET_SECONDS, WorkerSchema
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import PayloadLostError, UnavailableError
from agentexec.payloads.columns import stored
from agentexec.payloads.sealing import unseal
from agentexec.task import Status


class TaskContents(NamedTuple):
    """A task's context and result as JSON text; None without one. `expired`: its result was removed.

    In place of a value that the payload store does not give, the reason.
    """

    context: str | None
    result: str | None
    expired: bool = False


def contents(db: Session, agent_id: UUID) -> TaskContents:
    """Return the context and the result of one task."""
    row = db.execute(
        select(stored(Activity.context), Activity.status, Activity.finished_at, stored(ActivityResult.value))
        .outerjoin(ActivityResult, ActivityResult.agent_id == Activity.agent_id)
        .where(Activity.agent_id == agent_id)
    ).one_or_none()
    if row is None:
        return TaskContents(None, None)
    ended = row.finished_at if row.status is Status.COMPLETE and row.value is None else None
    # A result of None has no row either.
    expired = ended is not None and ended < utc_now() - timedelta(seconds=CONF.result_ttl)
    return TaskContents(_opened(row.context), _opened(row.value), expired)


def _opened(text: str | None) -> str | None:
    try:
        return None if text is None else unseal(text)
    except (PayloadLostError, UnavailableError) as error:
        return json.dumps(str(error))  # the rest of the task is there to see


def workers_of(db: Session, queue: str) -> list[WorkerSchema]:
    """Return the worker processes that serve a queue, including those that have not reported for some minutes."""
    since = utc_now() - timedelta(seconds=FORGET_SECONDS)
    serves = or_(WorkerProcess.queue == queue, WorkerProcess.queues.is_not(None))
    query = select(WorkerProcess).where(serves, WorkerProcess.seen_at > since)
    rows = db.scalars(query.order_by(WorkerProcess.worker_id))
    return [WorkerSchema.model_validate(row) for row in rows if queue in queues_of(row)]
