"""The activity record: `ax.activity.create/update/complete/error`, and queries for dashboards."""

from agentexec.activity.queries import (
    active_count,
    cancel_pending,
    detail,
)
from agentexec.activity.queries import list_activities as list
from agentexec.activity.reports import complete, create, error, update
from agentexec.activity.schemas import (
    ActivityDetailSchema,
    ActivityListItemSchema,
    ActivityListSchema,
    ActivityLogSchema,
)
from agentexec.task import Status

count_active = active_count

__all__ = [
    "ActivityDetailSchema",
    "ActivityListItemSchema",
    "ActivityListSchema",
    "ActivityLogSchema",
    "Status",
    "active_count",
    "cancel_pending",
    "complete",
    "count_active",
    "create",
    "detail",
    "error",
    "list",
    "update",
]
