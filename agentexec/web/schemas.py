"""Bodies of requests and answers of the HTTP API that no query returns by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from agentexec.activity.queries.labels import storable_text
from agentexec.arguments.checks import check_moment
from agentexec.errors import UsageError
from agentexec.task import Status

MAX_BULK = 10_000
"""Maximum number of tasks that one request changes."""

MAX_REASON = 500
"""Characters of the reason of a pause, which tables and log lines show."""

MAX_NAMED = 1_000
"""Maximum number of tasks that one request names by their ids."""

_NO_FILTERS = frozenset({"all", "limit", "dry_run", "metadata"})

Right = Literal["read", "act"]
Labels = Annotated[
    dict[str, Any] | None,
    Field(default=None, description="Values that the metadata of the tasks has.", max_length=64),
]


class CallerSchema(BaseModel):
    """Caller of the API, and its rights."""

    name: str | None = Field(default=None, description="Name under which its acts are recorded.")
    rights: list[Right] = Field(description="What it may do: read, act.")
    scoped: bool = Field(
        description="Whether it sees only a part of the tasks, and neither workers nor queues."
    )
    agent_id: UUID | None = Field(default=None, description="The only task that it may read; null for lists.")
    expires_at: datetime | None = Field(default=None, description="Time at which its read token expires.")


class ActivityCountSchema(BaseModel):
    """Numbers of tasks that have not ended."""

    queued: int
    running: int
    active: int = Field(description="Number of queued and running tasks.")


class ContentsSchema(BaseModel):
    """Context, result, and what the queue knows of a task, for people who look after it.

    Values are without secrets, as far as these are known or look like one, and long ones are cut and say so.
    """

    agent_id: UUID
    queue: str | None = Field(default=None, description="Queue; null for an activity that has none.")
    priority: Literal["high", "low"] | None = None
    run_at: datetime | None = Field(default=None, description="The task starts no earlier than this.")
    metadata: dict[str, Any] | None = None
    lock_key: str | None = None
    concurrency_key: str | None = None
    context: Any = Field(default=None, description="Context of the task; null without one.")
    result: Any = Field(default=None, description="Result of the task; null without one.")
    result_expired: bool = Field(
        default=False, description="Whether the result was removed after its time to live."
    )


class ActSchema(BaseModel):
    """Outcome of an act."""

    changed: bool = Field(description="False if there was nothing to change any more.")


class BudgetBody(BaseModel):
    """Limit of what a task may spend in all."""

    model_config = ConfigDict(extra="forbid")

    budget: str = Field(max_length=100, description='The new limit, like "$5.00" or "500000 tokens".')


class RetryBody(BaseModel):
    """Changes that a retry makes to its task."""

    model_config = ConfigDict(extra="forbid")

    budget: str | None = Field(
        default=None, max_length=100, description='New limit of what the task may spend in all, like "$5.00".'
    )


class StartedSchema(BaseModel):
    """Task that was started."""

    agent_id: UUID


class BulkSchema(BaseModel):
    """Outcome of an act on all tasks that match."""

    dry_run: bool = Field(description="Whether nothing was changed.")
    matched: int = Field(description="Number of tasks that matched before; a lower bound unless it is exact.")
    matched_is_exact: bool
    changed: int = Field(description="Number of tasks that were changed.")
    more: bool = Field(description="Whether matching tasks are left; repeat the request until it is false.")


class RuleScopeBody(BaseModel):
    """Tool, arguments and tasks of a rule that approves calls without asking."""

    model_config = ConfigDict(extra="forbid")

    where: list[str] | None = Field(
        default=None,
        max_length=20,
        description="Conditions on the arguments, like amount<=100 or to=*@example.com; null for the same arguments as those of the "
        "approved call.",
    )
    scope: Literal["task", "conversation", "metadata"] = Field(
        default="task",
        description="Calls of which tasks: of this one, of its conversation, or of those with labels.",
    )
    metadata: Labels = None
    expires_seconds: float = Field(
        default=86_400.0, ge=1, le=366 * 86_400, description="Seconds for which the rule is in force."
    )
    tool: str | None = Field(
        default=None,
        max_length=200,
        description="Name of the tool, with * for any characters; null for that of the call.",
    )


class RuleBody(BaseModel):
    """Rule that approves calls without asking."""

    model_config = ConfigDict(extra="forbid")

    tool: str = Field(max_length=200, description="Name of the tool, with * for any characters.")
    where: list[str] = Field(
        max_length=20, description="Conditions on the arguments; an empty list for any arguments."
    )
    scope: Literal["task", "conversation", "metadata"] = Field(
        default="task",
        description="Calls of which tasks: of one, of its conversation, or of those with labels.",
    )
    metadata: Labels = None
    expires_seconds: float = Field(
        default=86_400.0, ge=1, le=366 * 86_400, description="Seconds for which the rule is in force."
    )
    agent_id: UUID | None = Field(
        default=None, description="The task, or one of the conversation; null for a rule about labels."
    )
    reason: str | None = Field(default=None, max_length=1_000, description="Why, for people.")


class ApproveBody(BaseModel):
    """Further parts of an approval."""

    model_config = ConfigDict(extra="forbid")

    arguments: dict[str, Any] | None = Field(
        default=None,
        description="Arguments for the call instead of the model's; they must fit the tool's schema.",
    )
    rule: RuleScopeBody | None = Field(
        default=None, description="Approve later calls like this one too, without asking."
    )
    reason: str | None = Field(default=None, max_length=1_000, description="Why, for people.")


class RejectBody(BaseModel):
    """Reason of a rejection."""

    model_config = ConfigDict(extra="forbid")

    message: str | None = Field(default=None, max_length=2_000, description="Text for the model.")
    reason: str | None = Field(default=None, max_length=1_000, description="Why, for people.")


class RuleSavedSchema(BaseModel):
    """Rule that was made."""

    rule_id: UUID


class PauseBody(BaseModel):
    """Reason of a pause."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=MAX_REASON, description="Text for those who look.")


class BulkBody(BaseModel):
    """Filters of the tasks that an act is about. Without any of them, `all` must be true."""

    model_config = ConfigDict(extra="forbid")

    agent_ids: list[UUID] | None = Field(default=None, max_length=MAX_NAMED, description="Only these tasks.")
    task_name: str | None = Field(default=None, max_length=200, description="Only tasks with this name.")
    queue: str | None = Field(default=None, max_length=200, description="Only tasks of this queue.")
    metadata: Labels = None
    all: bool = Field(default=False, description="True to act on all tasks, without any filter.")
    limit: int = Field(
        default=1_000, ge=1, le=MAX_BULK, description="Maximum number of tasks that are changed."
    )
    dry_run: bool = Field(default=False, description="Count the tasks, and change nothing.")

    def filters(self) -> dict[str, Any]:
        """Return the filters that are given, without the metadata. Raises UsageError if there is none at all."""
        given = {name: value for name, value in self if name not in _NO_FILTERS and value is not None}
        if not (given or self.metadata or self.all):
            raise UsageError("Give a filter, or all: true to act on every task that you may see.")
        return {name: _checked(name, value) for name, value in given.items()}


def _checked(name: str, value: Any) -> Any:
    """Return a filter as a database accepts it. Raises UsageError."""
    if isinstance(value, datetime):
        return check_moment(name, value)
    return storable_text(value) if isinstance(value, str) and not isinstance(value, Status) else value


class BulkCancelBody(BulkBody):
    """Filters of the tasks that are canceled."""

    status: Literal[Status.QUEUED, Status.RUNNING] | None = Field(
        default=None, description="Only queued or only running tasks; by default both."
    )
    created_after: datetime | None = Field(
        default=None, description="Only tasks created at this time or later."
    )
    created_before: datetime | None = Field(default=None, description="Only tasks created before this time.")


class BulkRetryBody(BulkBody):
    """Filters of the failed tasks that are retried."""

    since: datetime | None = Field(default=None, description="Only tasks that failed at this time or later.")
    error: str | None = Field(
        default=None,
        max_length=500,
        description="Only tasks with this last log line, or its first 500 characters: the `error` of a group.",
    )


class FailedTaskSchema(BaseModel):
    """Task that failed for good."""

    model_config = ConfigDict(from_attributes=True)

    agent_id: UUID
    task_name: str
    queue: str
    attempts: int
    crashes: int
    created_at: datetime
    failed_at: datetime | None
    error: str = Field(description="First line of its error.")


class FailedListSchema(BaseModel):
    """The newest of the tasks that failed for good."""

    items: list[FailedTaskSchema]
    total: int = Field(description="Number of tasks that match; a lower bound unless it is exact.")
    total_is_exact: bool


class FailedGroupSchema(BaseModel):
    """Failed tasks of one name with the same last log line."""

    task_name: str
    error: str = Field(description="Last line of their logs.")
    count: int
    latest_at: datetime | None = Field(description="Time of the latest failure.")
    latest_agent_id: UUID = Field(description="Task that failed last.")


class FailedGroupListSchema(BaseModel):
    """The largest groups of failed tasks."""

    groups: list[FailedGroupSchema]
    is_complete: bool = Field(description="False if only the newest failures were grouped.")


class ScheduleItemSchema(BaseModel):
    """Schedule, as of its latest tick."""

    model_config = ConfigDict(from_attributes=True)

    queue: str
    name: str
    task_name: str = Field(description="Task that each tick enqueues.")
    cron: str = Field(description='Cron expression, or "@every SECONDS".')
    timezone: str = Field(description="Time zone in which the expression is read.")
    repeat: int | None = Field(description="Number of tasks after which it ends; null for no end.")
    runs: int = Field(description="Number of tasks so far.")
    next_at: datetime | None = Field(description="Time of its next tick; null once it has ended.")
    last_at: datetime | None = Field(description="Time of the tick of its latest task.")
    last_agent_id: UUID | None = Field(description="Its latest task.")
    paused_at: datetime | None = Field(description="Time since which it is paused; null if it is not.")
