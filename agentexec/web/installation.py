"""Endpoints about the installation: overview, money, workers, queues, schedules, and the caller itself."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import HTTPException, Query

from agentexec.activity.queries.labels import label_rows, wanted_labels
from agentexec.activity.queries.overview import (
    MAX_MINUTES,
    OverviewSchema,
    SpentSchema,
    WorkerSchema,
    workers,
)
from agentexec.activity.queries.overview import overview as find_overview
from agentexec.activity.queries.overview import spent as find_spent
from agentexec.activity.queries.queues import QueueSchema
from agentexec.activity.queries.queues import list_queues as find_queues
from agentexec.arguments.actors import phrase
from agentexec.client.queues import pause_sync, resume_sync
from agentexec.runtime import RUNTIME
from agentexec.schedules.record import ScheduleSchema, find_schedules, pause, resume, run_now
from agentexec.web.access import Actor, AnyCaller, Reader
from agentexec.web.caller import Caller
from agentexec.web.endpoints import Endpoints
from agentexec.web.parameters import QueueName, reading_session
from agentexec.web.schemas import (
    ActSchema,
    CallerSchema,
    PauseBody,
    ScheduleItemSchema,
    StartedSchema,
)

log = logging.getLogger("agentexec.web")

ENDPOINTS = Endpoints("Installation")

MAX_SPENT_MINUTES = 7 * 24 * 60
SOMEBODY = "a caller of the HTTP API"
"""Name of a caller that has none, in the record of pauses."""


@ENDPOINTS.get("/me", summary="Get the caller's rights")
async def get_me(caller: AnyCaller) -> CallerSchema:
    """Get what the caller of this API may do."""
    return CallerSchema(
        name=caller.name,
        rights=caller.rights,
        scoped=caller.metadata_filter is not None or caller.agent_id is not None,
        agent_id=caller.agent_id,
        expires_at=caller.expires_at,
    )


@ENDPOINTS.get("/overview", summary="Get the overview")
def get_overview(
    caller: Reader,
    minutes: Annotated[
        int,
        Query(ge=1, le=MAX_MINUTES, description="Minutes, for each of which the ended tasks are counted."),
    ] = 30,
) -> OverviewSchema:
    """Get the numbers of queued, running and recently ended tasks, and the worker processes."""
    with reading_session() as db:
        return find_overview(db, minutes, metadata_filter=caller.metadata_filter)


@ENDPOINTS.get("/spent", summary="Get recent usage and cost")
def get_spent(
    caller: Reader,
    minutes: Annotated[
        int, Query(ge=1, le=MAX_SPENT_MINUTES, description="Length of the time span, up to now.")
    ] = 60,
) -> SpentSchema:
    """Get tokens and cost of the tasks that ended recently, at most of the newest 5,000."""
    with reading_session() as db:
        return find_spent(db, minutes, metadata_filter=caller.metadata_filter)


@ENDPOINTS.get("/workers", summary="List worker processes")
def list_workers(caller: Reader) -> list[WorkerSchema]:
    """List the worker processes; lost ones stay for ten minutes. They serve all tenants: a caller with a filter sees none."""
    if caller.metadata_filter is not None:
        return []
    with reading_session() as db:
        return workers(db)


@ENDPOINTS.get("/queues", summary="List queues")
def list_queues(caller: Reader) -> list[QueueSchema]:
    """List the queues with their tasks and pauses. They serve all tenants: a caller with a filter sees none."""
    if caller.metadata_filter is not None:
        return []
    with reading_session() as db:
        return find_queues(db)


@ENDPOINTS.post("/queues/{name:path}/pause", summary="Pause a queue")
def pause_queue(name: str, caller: Actor, body: PauseBody | None = None) -> ActSchema:
    """Pause a queue: its running tasks go on, and no more are started. `changed` is false if it was paused before."""
    _require_everything(caller, f"There is no queue {name}.")
    reason = None if body is None else body.reason
    return ActSchema(changed=pause_sync(name, reason=reason, by=caller.name or SOMEBODY))


@ENDPOINTS.post("/queues/{name:path}/resume", summary="Resume a queue")
def resume_queue(name: str, caller: Actor) -> ActSchema:
    """Resume a paused queue; `changed` is false if it was not paused."""
    _require_everything(caller, f"There is no queue {name}.")
    return ActSchema(changed=resume_sync(name, by=caller.name or SOMEBODY))


@ENDPOINTS.get("/schedules", summary="List schedules")
def list_schedules(caller: Reader, queue: QueueName = None) -> list[ScheduleItemSchema]:
    """List the schedules by queue and name. A caller with a filter sees those whose tasks have its metadata."""
    return [ScheduleItemSchema.model_validate(found) for found in _schedules(caller, queue)]


@ENDPOINTS.post("/schedules/{name:path}/pause", summary="Pause a schedule", errors=(409,))
def pause_schedule(name: str, caller: Actor, queue: QueueName = None) -> ActSchema:
    """Pause a schedule: its ticks are skipped until it is resumed. `changed` is false if it was paused before."""
    found = _schedule(caller, name, queue)
    pause(RUNTIME.engine, found)
    return _noted(found, caller, "paused", found.paused_at is None)


@ENDPOINTS.post("/schedules/{name:path}/resume", summary="Resume a schedule", errors=(409,))
def resume_schedule(name: str, caller: Actor, queue: QueueName = None) -> ActSchema:
    """Resume a paused schedule; `changed` is false if it was not paused."""
    found = _schedule(caller, name, queue)
    resume(RUNTIME.engine, found)
    return _noted(found, caller, "resumed", found.paused_at is not None)


@ENDPOINTS.post("/schedules/{name:path}/run", summary="Run a schedule's task now", errors=(409,))
def run_schedule(name: str, caller: Actor, queue: QueueName = None) -> StartedSchema:
    """Enqueue a task of a schedule now, beside its ticks."""
    return StartedSchema(agent_id=run_now(RUNTIME.engine, _schedule(caller, name, queue), by=caller.name))


def _require_everything(caller: Caller, sentence: str) -> None:
    """Answer as if there were nothing, if the caller sees only a part of the tasks."""
    if caller.metadata_filter is not None or caller.agent_id is not None:
        raise HTTPException(404, sentence)


def _schedules(caller: Caller, queue: str | None) -> list[ScheduleSchema]:
    wanted = dict(caller.metadata_filter or {})
    if caller.agent_id is not None:
        return []
    return [found for found in find_schedules(RUNTIME.engine, queue) if _has_labels(found.labels, wanted)]


def _has_labels(labels: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    return {*wanted_labels(wanted)} <= {*label_rows(labels)}


def _schedule(caller: Caller, name: str, queue: str | None) -> ScheduleSchema:
    """Return the schedule that an act is about."""
    found = [schedule for schedule in _schedules(caller, queue) if schedule.name == name]
    if not found:
        raise HTTPException(404, f"There is no schedule {name}; a worker that declares it must have started.")
    if len(found) > 1:
        queues = ", ".join(schedule.queue for schedule in found)
        raise HTTPException(409, f"Several queues have a schedule {name} ({queues}); name one with `queue`.")
    return found[0]


def _noted(schedule: ScheduleSchema, caller: Caller, what: str, changed: bool) -> ActSchema:
    if changed:
        by = phrase(caller.name or SOMEBODY)
        log.info("Schedule %s of queue %s was %s%s.", schedule.name, schedule.queue, what, by)
    return ActSchema(changed=changed)
