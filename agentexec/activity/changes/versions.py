"""Versions of a worker's tasks, which the record keeps of each run that they begin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

NONE: Mapping[str, str] = MappingProxyType({})


class Versions:
    """Versions of the tasks that a worker has.

    Args:
        default: Version of the tasks that have none of their own.
        by_task: Versions of single tasks, by name. It may grow.
        is_pinned: The worker runs what began with these versions only, and what nobody has begun.
    """

    def __init__(
        self, default: str | None = None, by_task: Mapping[str, str] = NONE, *, is_pinned: bool = False
    ) -> None:
        self.default = default
        self.is_pinned = is_pinned
        self._by_task = by_task

    def of(self, task_name: str) -> str | None:
        """Return the version of a task."""
        return self._by_task.get(task_name, self.default)

    @property
    def by_task_text(self) -> str:
        """The versions of single tasks as JSON."""
        return json.dumps(dict(self._by_task)) if self._by_task else "{}"


NO_VERSIONS = Versions()
"""Versions of a worker whose tasks have none."""
