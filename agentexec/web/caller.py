"""Caller of the HTTP API: the tasks that it may see, and what it may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from agentexec.activity.models import MAX_NAME
from agentexec.activity.queries.labels import wanted_labels
from agentexec.arguments.checks import check_flag, check_text
from agentexec.errors import UsageError


@dataclass(frozen=True)
class Caller:
    """Caller of the HTTP API, which the dependency `caller=` of `ax.web.router` returns for each request.

    Args:
        name: Name that the log of a task shows, as in "Canceled by alice.".
        read: Whether it may read.
        act: Whether it may cancel, retry, fork, set budgets, approve, reject, pause and resume.
        metadata_filter: Values that the metadata of its tasks has. All other tasks do not exist for it, nor do workers
            and queues, which serve all tenants. None shows everything.

    Raises:
        UsageError: An argument is invalid. An empty `metadata_filter` is refused, because it would show everything.
    """

    name: str | None = None
    _: KW_ONLY
    read: bool = True
    act: bool = False
    metadata_filter: Mapping[str, Any] | None = None
    agent_id: UUID | None = None
    """The only task that it may see: that of a read token."""
    expires_at: datetime | None = None
    """Time at which its read token expires."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_text("name=", self.name, MAX_NAME)
        check_flag("read=", self.read)
        check_flag("act=", self.act)
        if self.metadata_filter is not None and not wanted_labels(self.metadata_filter):
            raise UsageError(
                "metadata_filter={} would show the tasks of every tenant; give None if the caller may see them."
            )

    @property
    def rights(self) -> list[Literal["read", "act"]]:
        """Names of its rights."""
        rights: list[Literal["read", "act"]] = ["read"] if self.read else []
        return [*rights, "act"] if self.act else rights
