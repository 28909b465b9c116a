"""Results of the activity queries: pydantic models, ready to be the response of a web API.

They are built on first use (`defer_build`): a command needs few of them, and building one takes about a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from agentexec.activity.deaths import read_death
from agentexec.arguments.budgets import NANOS, format_amount
from agentexec.config import CONF
from agentexec.llm.prices import compute_cost
from agentexec.task import Status


class ActivityLogSchema(BaseModel):
    """Line of an activity's log."""

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    id: int
    created_at: datetime
    message: str
    status: Status
    percentage: int | None = None


class UsageSchema(BaseModel):
    """Recorded usage of model calls."""

    model_config = ConfigDict(defer_build=True)

    requests: int = Field(default=0, description="Number of model calls that were answered.")
    input_tokens: int = Field(default=0, description="Input tokens, including the cached ones.")
    cached_tokens: int = 0
    output_tokens: int = 0


def valid_usage(usage: Any) -> dict[str, dict[str, int]]:
    """Return the usage by model of a database column, without values that are not usage."""
    if not isinstance(usage, dict):
        return {}
    return {
        str(model): {name: used[name] for name in UsageSchema.model_fields if type(used.get(name)) is int}
        for model, used in usage.items()
        if isinstance(used, dict)
    }


def add_usage(sums: dict[str, dict[str, int]], usage: Any, names: Sequence[str]) -> None:
    """Add the usage by model of a database column to sums by model and name, without values that are not usage."""
    if not isinstance(usage, dict):
        return
    for model, used in usage.items():
        if isinstance(used, dict):
            sum_of_model = sums.get(model) or sums.setdefault(str(model), dict.fromkeys(names, 0))
            for name in names:
                value = used.get(name)
                if type(value) is int:
                    sum_of_model[name] += value


class _ActivitySchema(BaseModel):
    """Fields that list items and details share."""

    model_config = ConfigDict(defer_build=True, from_attributes=True, populate_by_name=True)

    agent_id: UUID
    agent_type: str = Field(description="Name of the task.")
    status: Status
    percentage: int = 0
    created_at: datetime
    updated_at: datetime = Field(description="Time of the last change of status or report.")
    started_at: datetime | None = Field(
        default=None, description="Start of the first attempt; null before it."
    )
    finished_at: datetime | None = Field(
        default=None, description="End of the task, with any final status; null before it."
    )
    # Columns of the record, from which `usage` is made.
    requests: int | None = Field(default=None, exclude=True, repr=False)
    input_tokens: int | None = Field(default=None, exclude=True, repr=False)
    cached_tokens: int | None = Field(default=None, exclude=True, repr=False)
    output_tokens: int | None = Field(default=None, exclude=True, repr=False)
    # Of the queue, for people who look after it.
    queue: str | None = Field(default=None, exclude=True)
    priority: int = Field(default=1, exclude=True)
    run_at: datetime | None = Field(default=None, exclude=True)
    epoch: int = Field(default=0, exclude=True, repr=False)
    fairness_key: str | None = Field(default=None, exclude=True, repr=False)
    fairness_weight: float | None = Field(default=None, exclude=True, repr=False)
    lock_key: str | None = Field(default=None, exclude=True, repr=False)
    concurrency_key: str | None = Field(default=None, exclude=True, repr=False)
    # Labels of tenants: for the application, not for the clients of its API.
    metadata: dict[str, Any] | None = Field(default=None, validation_alias="metadata_", exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def task_name(self) -> str:
        """Name of the task, as `agent_type`."""
        return self.agent_type

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usage(self) -> UsageSchema:
        """Sums over all models and attempts; zeros if no model was called."""
        return UsageSchema(
            requests=self.requests or 0,
            input_tokens=self.input_tokens or 0,
            cached_tokens=self.cached_tokens or 0,
            output_tokens=self.output_tokens or 0,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def elapsed_seconds(self) -> float | None:
        """Seconds from the start to the end, or to the last change of a running task; None before the start."""
        if self.started_at is None:
            return None
        return ((self.finished_at or self.updated_at) - self.started_at).total_seconds()


WaitKind = Literal["start", "retry", "sleep", "approval", "event", "lock", "version"]


class WaitSchema(BaseModel):
    """Reason for which a queued task does not start yet."""

    model_config = ConfigDict(defer_build=True)

    kind: WaitKind = Field(
        description="Its start time, the next attempt after a failed one, a sleep, a person, an event, a lock, or a worker of the "
        "version that it began with."
    )
    until: datetime | None = Field(
        default=None, description="Time at which it starts at the latest; null if there is none."
    )
    name: str | None = Field(default=None, description="The calls, event, lock or version that it waits for.")


class ActivityListItemSchema(_ActivitySchema):
    """Activity in a list."""

    latest_log_message: str | None = Field(default=None, validation_alias="message")
    waiting: WaitSchema | None = Field(
        default=None,
        description="Reason for which a queued task does not start yet; null if it waits for its turn only.",
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def latest_log_timestamp(self) -> datetime:
        """Time of the log's latest line, as `updated_at`: both are written together."""
        return self.updated_at

    @computed_field  # type: ignore[prop-decorator]
    @property
    def elapsed_time_seconds(self) -> int:
        """`elapsed_seconds` as a whole number; 0 before the start."""
        return int(self.elapsed_seconds or 0)


class ActivityListSchema(BaseModel):
    """Page of activities; `page` counts from 1.

    `total` is the number of matching activities, or a lower bound if `total_is_exact` is false. `next_cursor` is the
    `after=` of the next page, None on a page that is not full.
    """

    model_config = ConfigDict(defer_build=True)

    items: list[ActivityListItemSchema]
    total: int
    page: int
    page_size: int
    total_is_exact: bool = True
    next_cursor: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_pages(self) -> int:
        """Number of pages; 0 if nothing matches."""
        return -(-self.total // self.page_size)


class ActivityChildSchema(BaseModel):
    """Task that another task has enqueued, with the tasks that it has enqueued itself."""

    model_config = ConfigDict(defer_build=True, from_attributes=True, populate_by_name=True)

    agent_id: UUID
    agent_type: str
    status: Status
    percentage: int = 0
    latest_log_message: str | None = Field(default=None, validation_alias="message")
    children: list[ActivityChildSchema] = Field(default_factory=list)
    more_below: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def task_name(self) -> str:
        """Name of the task, as `agent_type`."""
        return self.agent_type


class WorkerDeathSchema(BaseModel):
    """Death of a worker process that ran a task."""

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    at: datetime = Field(description="Time at which the death was noticed.")
    signal: str | None = Field(default=None, description="Signal that killed the process; null without one.")
    reason: str = Field(description='Completes the sentence "The worker process …".')


class TaskFailure(BaseModel):
    """A task that has failed for good, as an `on_failure` handler gets it."""

    model_config = ConfigDict(defer_build=True)

    agent_id: UUID
    task_name: str
    queue_name: str
    status: Status = Field(description="ERROR, or CANCELED for a task that expired.")
    context: Any = Field(default=None, description="Context of the task, as JSON data.")
    metadata: dict[str, Any] | None = None
    error: str = Field(description="The reason, without its traceback.")
    details: str | None = Field(default=None, description="The reason with its traceback.")
    attempts: int
    crashes: int
    failed_at: datetime


class ApprovalRequest(BaseModel):
    """A question that waits for a person, as an `on_approval` handler and a webhook get it."""

    model_config = ConfigDict(defer_build=True)

    agent_id: UUID = Field(description="The task that asks.")
    task_name: str
    queue_name: str
    call_id: str = Field(description="Id of the call, for `ax.approve` and `ax.reject`.")
    kind: Literal["approval", "repeat"]
    tool: str
    arguments: str = Field(description="The arguments as the JSON that the model wrote.")
    metadata: dict[str, Any] | None = None
    asked_at: datetime
    expires_at: datetime | None = Field(
        default=None, description="Time of the default answer; null for none."
    )
    default: Literal["approve", "reject"] = Field(default="reject", description="The answer at that time.")
    reminder: int = Field(default=0, description="0 for the first notice, then the number of the reminder.")


class BudgetSchema(BaseModel):
    """Budget of a task, or of the tasks that share one in a period. Amounts are in its unit."""

    model_config = ConfigDict(defer_build=True)

    title: str = Field(
        description='"task", or the label and value of a shared one, like "tenant=acme"; "*" for all tasks.'
    )
    unit: Literal["dollars", "tokens"]
    limit: float = Field(description="Limit, with what people have added to it.")
    spent: float = Field(description="Sum of the recorded responses.")
    reserved: float = Field(description="Sum of what calls in flight are expected to take.")
    period: str | None = Field(
        default=None, description="minute, hour, day, week or month; null for a task's own."
    )
    ends_at: datetime | None = Field(default=None, description="End of the period.")

    def __str__(self) -> str:
        scale = NANOS if self.unit == "dollars" else 1
        spent, reserved, limit = (
            format_amount(self.unit, round(amount * scale))
            for amount in (self.spent, self.reserved, self.limit)
        )
        return f"{spent} spent, {reserved} reserved of {limit}"


class ActivityDetailSchema(_ActivitySchema):
    """Activity with its whole log.

    `children` is the tree of the tasks that it has enqueued, oldest first, with up to 1,000 tasks on up to 20 levels.
    `more_below` is True where a task has more children than the tree shows.
    """

    id: UUID
    parent_id: UUID | None = None
    children: list[ActivityChildSchema] = Field(default_factory=list)
    more_below: bool = False
    attempt: int = 0
    error: str | None = None
    expires_at: datetime | None = None
    version: str | None = Field(
        default=None, description="Version of the code that began its run; null before it, or without one."
    )
    budget: BudgetSchema | None = Field(
        default=None,
        validation_alias="budget_account",
        description="Budget of the task itself; null without one.",
    )
    usage_by_model: dict[str, UsageSchema] = Field(default_factory=dict, validation_alias="usage")
    logs: list[ActivityLogSchema] = Field(default_factory=list)

    @field_validator("usage_by_model", mode="before")
    @classmethod
    def _valid_usage(cls, value: Any) -> Any:
        return valid_usage(value)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deaths(self) -> list[WorkerDeathSchema]:
        """Deaths of worker processes while they ran the task, oldest first, as its log tells them."""
        told = (read_death(line.created_at, line.status, line.message) for line in self.logs)
        return [WorkerDeathSchema.model_validate(death) for death in told if death is not None]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost(self) -> float | None:
        """Estimated cost in dollars; None unless the price of every model that was called is known."""
        usage = {model: used.model_dump() for model, used in self.usage_by_model.items()}
        return compute_cost(usage, CONF.model_prices, use_list_prices=CONF.list_prices)


EventType = Literal[
    "log",
    "status",
    "text_delta",
    "tool_called",
    "tool_output",
    "agent",
    "usage",
    "result",
    "error",
    "canceled",
    "dropped",
]


class ActivityEvent(BaseModel):
    """Event of a task, from `ax.activity.stream`.

    `id` is opaque; pass it as `after=` to resume the stream after this event.

    There is one durable event for each log line: `log`, or `status` if the line changed the status, or for the last
    line `result`, `error` or `canceled`. Live events are short-lived: `text_delta`, `tool_called`, `tool_output`,
    `agent` (another agent took over) and `usage`. `dropped` stands where some of them are missing.
    """

    model_config = ConfigDict(defer_build=True)

    id: str
    type: EventType
    at: datetime
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def final(self) -> bool:
        """True for the event that ends the stream."""
        return self.type in ("result", "error", "canceled")
