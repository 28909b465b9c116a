"""The record of a task, as tests read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agentexec.activity.schemas import ActivityLogSchema
from agentexec.task import Status


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The record of a task.

    Attributes:
        agent_id: Id of the task.
        task_name: Name of the task.
        status: Its status.
        result: Its result as the handler returned it, decoded by the handler's return type; None unless COMPLETE.
        error: Reason and traceback of the last attempt.
        attempts: Number of attempts that count.
        percentage: Its progress, 0 to 100.
        metadata: Its metadata.
        log: Its history, oldest first.
    """

    agent_id: UUID
    task_name: str
    status: Status
    result: Any
    error: str | None
    attempts: int
    percentage: int
    metadata: dict[str, Any] | None
    log: list[ActivityLogSchema]

    @property
    def messages(self) -> list[str]:
        """Messages of the log, oldest first."""
        return [line.message for line in self.log]
