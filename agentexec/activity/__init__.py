"""Activity record: reports of progress, queries for dashboards, and the live stream of a task."""

from agentexec.activity.changes.cancel_pending import cancel_pending
from agentexec.activity.changes.prune import prunable, prune
from agentexec.activity.changes.reports import complete, create, error, update
from agentexec.activity.live.stream import ActivityStream, stream
from agentexec.activity.queries.detail import active_count, detail
from agentexec.activity.queries.listing import list_activities as list
from agentexec.activity.queries.overview import OverviewSchema, SpentSchema, WorkerSchema, overview, spent
from agentexec.activity.schemas import (
    ActivityChildSchema,
    ActivityDetailSchema,
    ActivityEvent,
    ActivityListItemSchema,
    ActivityListSchema,
    ActivityLogSchema,
    WorkerDeathSchema,
)
from agentexec.task import Status

count_active = active_count

__all__ = [
    "ActivityChildSchema",
    "ActivityDetailSchema",
    "ActivityEvent",
    "ActivityListItemSchema",
    "ActivityListSchema",
    "ActivityLogSchema",
    "ActivityStream",
    "OverviewSchema",
    "SpentSchema",
    "Status",
    "WorkerDeathSchema",
    "WorkerSchema",
    "active_count",
    "cancel_pending",
    "complete",
    "count_active",
    "create",
    "detail",
    "error",
    "list",
    "overview",
    "prunable",
    "prune",
    "spent",
    "stream",
    "update",
]
