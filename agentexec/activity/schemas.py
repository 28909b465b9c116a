"""What the activity queries return: pydantic models, ready to be a web API's response.

They are built on first use (`defer_build`): a command needs few of them, and each takes about a millisecond.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from agentexec.config import CONF
from agentexec.llm.prices import compute_cost
from agentexec.task import Status


class ActivityLogSchema(BaseModel):
    """One line of an activity's history."""

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    id: int
    created_at: datetime
    message: str
    status: Status
    percentage: int | None = None


class UsageSchema(BaseModel):
    """What model calls used, as they were recorded."""

    model_config = ConfigDict(defer_build=True)

    requests: int = Field(default=0, description="Model calls that were answered.")
    input_tokens: int = Field(default=0, description="The cached ones included.")
    cached_tokens: int = 0
    output_tokens: int = 0


def valid_usage(usage: Any) -> dict[str, dict[str, int]]:
    """Usage by model as a column has it, without what is none."""
    if not isinstance(usage, dict):
        return {}
    return {
        str(model): {name: used[name] for name in UsageSchema.model_fields if type(used.get(name)) is int}
        for model, used in usage.items()
        if isinstance(used, dict)
    }


class _ActivitySchema(BaseModel):
    """What list items and details have in common."""

    model_config = ConfigDict(defer_build=True, from_attributes=True, populate_by_name=True)

    agent_id: UUID
    agent_type: str = Field(description="Name of the task.")
    status: Status
    percentage: int = 0
    created_at: datetime
    updated_at: datetime = Field(description="The last change of status or report.")
    started_at: datetime | None = Field(default=None, description="Start of the first attempt.")
    finished_at: datetime | None = Field(default=None, description="When it ended, in whatever way.")
    # What the record has; `usage` is made of it.
    requests: int | None = Field(default=None, exclude=True, repr=False)
    input_tokens: int | None = Field(default=None, exclude=True, repr=False)
    cached_tokens: int | None = Field(default=None, exclude=True, repr=False)
    output_tokens: int | None = Field(default=None, exclude=True, repr=False)
    # Tenants' labels: for the application, not for the reader of its API.
    metadata: dict[str, Any] | None = Field(default=None, validation_alias="metadata_", exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usage(self) -> UsageSchema:
        """The sums over all models and attempts; zeros where no model was called."""
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


class ActivityListItemSchema(_ActivitySchema):
    """One activity in a list."""

    latest_log_message: str | None = Field(default=None, validation_alias="message")


class ActivityListSchema(BaseModel):
    """One page of activities; `page` counts from 1.

    `total`: how many match; where that is not exact, at least so many. `next_cursor`: the `after=` of the next page,
    None on a page that is not full.
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
        """The number of pages, 0 if there is nothing."""
        return -(-self.total // self.page_size)


class ActivityChildSchema(BaseModel):
    """A task that another one has enqueued, with those that it has enqueued itself."""

    model_config = ConfigDict(defer_build=True, from_attributes=True, populate_by_name=True)

    agent_id: UUID
    agent_type: str
    status: Status
    percentage: int = 0
    latest_log_message: str | None = Field(default=None, validation_alias="message")
    children: list[ActivityChildSchema] = Field(default_factory=list)


class ActivityDetailSchema(_ActivitySchema):
    """One activity with its whole history. `children`: the tree of tasks that it has enqueued, oldest first, of which up
    to 1,000 tasks are given."""

    id: UUID
    parent_id: UUID | None = None
    children: list[ActivityChildSchema] = Field(default_factory=list)
    attempt: int = 0
    error: str | None = None
    usage_by_model: dict[str, UsageSchema] = Field(default_factory=dict, validation_alias="usage")
    logs: list[ActivityLogSchema] = Field(default_factory=list)

    @field_validator("usage_by_model", mode="before")
    @classmethod
    def _none_used(cls, value: Any) -> Any:
        return valid_usage(value)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost(self) -> float | None:
        """An estimate in dollars; None unless the price of every model that was called is known."""
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
    """Something that happened to a task, as `ax.activity.stream` gives it.

    `id` says how far the stream was read: give it as `after=` to go on behind it. It is opaque.

    Durable types, one event for each log line: `log`; `status`, a line with which the status changed; and the last
    of them, `result`, `error` or `canceled`. Short-lived types: `text_delta`, `tool_called`, `tool_output`, `agent`
    (another agent took over), `usage`; and `dropped`, which stands where some of these are missing.
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
