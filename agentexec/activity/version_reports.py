"""Versions of a worker's tasks, as its row in the record tells them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class VersionReport(NamedTuple):
    """Versions of a worker's tasks, as it reports them.

    `since`: when the first worker with these versions began, in seconds since the Unix epoch.
    """

    tasks: Mapping[str, str]
    is_pinned: bool
    since: float

    def may_run(self, task_name: str, version: str | None) -> bool:
        """Return True if the worker takes runs of a task that began with a version; None is any."""
        if not self.is_pinned:
            return True
        own = self.tasks.get(task_name)
        return own is not None and version in (None, own)


def dump_report(report: VersionReport) -> str:
    """Return a report as the value of its column."""
    return json.dumps({"pinned": report.is_pinned, "since": report.since, "tasks": dict(report.tasks)})


def read_report(text: Any) -> VersionReport | None:
    """Return the report of a worker's row; None if its tasks have no versions, or somebody else has written to the row."""
    try:
        value = json.loads(text)
        tasks = {str(name): str(version) for name, version in value["tasks"].items()}
        return VersionReport(tasks, value["pinned"] is True, float(value["since"]))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return None
