"""Activity record: reports of progress, queries for dashboards, and the live stream of a task.

Names are imported when they are used: a command that lists tasks does without the parts that write.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentexec.activity.changes.cancel_pending import cancel_pending
    from agentexec.activity.changes.prune import prunable, prune
    from agentexec.activity.changes.reports import complete, create, error, update
    from agentexec.activity.live.stream import ActivityStream, stream
    from agentexec.activity.queries.detail import active_count, detail
    from agentexec.activity.queries.detail import active_count as count_active
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

_HOMES = {
    "agentexec.activity.changes.cancel_pending": ("cancel_pending",),
    "agentexec.activity.changes.prune": ("prunable", "prune"),
    "agentexec.activity.changes.reports": ("complete", "create", "error", "update"),
    "agentexec.activity.live.stream": ("ActivityStream", "stream"),
    "agentexec.activity.queries.detail": ("active_count", "detail"),
    "agentexec.activity.queries.overview": (
        "OverviewSchema",
        "SpentSchema",
        "WorkerSchema",
        "overview",
        "spent",
    ),
    "agentexec.activity.schemas": (
        "ActivityChildSchema",
        "ActivityDetailSchema",
        "ActivityEvent",
        "ActivityListItemSchema",
        "ActivityListSchema",
        "ActivityLogSchema",
        "WorkerDeathSchema",
    ),
    "agentexec.task": ("Status",),
}
_RENAMED = {
    "count_active": ("agentexec.activity.queries.detail", "active_count"),
    "list": ("agentexec.activity.queries.listing", "list_activities"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    module, inner = _RENAMED.get(name) or (_HOME.get(name), name)
    if module is None:
        raise AttributeError(f"module 'agentexec.activity' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), inner)
    globals()[name] = value
    return value


def __dir__() -> Any:
    return sorted(__all__)
