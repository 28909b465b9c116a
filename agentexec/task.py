"""Types that every layer shares: task, status, priority, lease, task definition."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from agentexec.arguments.approval_policies import NO_POLICY, ApprovalPolicy
from agentexec.arguments.budgets import NO_BUDGET, TaskBudget
from agentexec.arguments.checks import shown
from agentexec.arguments.debounce import Debounce
from agentexec.arguments.fairness import MAX_WEIGHT, MIN_WEIGHT
from agentexec.arguments.versions import DivergencePolicy, Restart
from agentexec.errors import UsageError
from agentexec.values.codec import Codec


class Status(enum.StrEnum):
    """Status of a task. COMPLETE, ERROR and CANCELED are final: a task reaches exactly one of them."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    ERROR = "error"
    CANCELED = "canceled"

    def __init__(self, value: str) -> None:
        self.final = value in ("complete", "error", "canceled")
        """True for COMPLETE, ERROR and CANCELED. Not a property: each task asks several times."""


FINAL_STATUSES = frozenset(status for status in Status if status.final)
ACTIVE_STATUSES = frozenset({Status.QUEUED, Status.RUNNING})
FAILED_STATUSES = frozenset({Status.ERROR, Status.CANCELED})


class Priority(enum.IntEnum):
    """Priority of a task: HIGH tasks run before LOW ones. Each priority is first in, first out.

    Its JSON is "high" or "low" in pydantic models. They also accept these names in upper case, and the numbers 0 and 1.
    """

    HIGH = 0
    LOW = 1

    @classmethod
    def _missing_(cls, value: object) -> Priority | None:
        if not isinstance(value, str):
            return None
        name = value.strip().upper()
        return next((priority for priority in cls if name in (priority.name, str(priority.value))), None)

    @classmethod
    def _validate(cls, value: object) -> Priority:
        try:
            if isinstance(value, bool | float):
                raise ValueError
            return cls(value)
        except (ValueError, TypeError):
            raise PydanticCustomError("priority", "Input should be 'high' or 'low'") from None

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda priority: cls(priority).name.lower(), when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: object) -> dict[str, Any]:
        return {
            "type": "string",
            "enum": [priority.name.lower() for priority in cls],
            "title": cls.__name__,
            "description": "HIGH tasks run before LOW ones.",
        }


def stored_priority(value: object) -> Priority:
    """Return the priority of a row; LOW for any other number, which must not keep the other rows from their queue."""
    return Priority.HIGH if value == Priority.HIGH else Priority.LOW


class Entry(NamedTuple):
    """Task as the dispatch index knows it. Everything else is read from the record when the task starts.

    `run_at` is in seconds since the Unix epoch; 0 means now. `epoch` is the last epoch that the record knows, so an
    index rebuilt from the record never gives out an epoch twice. Tasks with the same `fairness_key` take turns with those
    of other keys, and get `fairness_weight` of them in each turn; tasks without one are those of one more key of weight 1.
    `groups` are those of `agentexec.state.groups`, the lock first; `holds_lock`: the task has its lock already. `since` is for a
    task that the index has lost: the moment since which it could start, which gives it its place back; 0 means now.
    """

    agent_id: UUID
    priority: Priority = Priority.LOW
    run_at: float = 0.0
    epoch: int = 0
    fairness_key: str | None = None
    fairness_weight: float = 1.0
    groups: tuple[str, ...] = ()
    holds_lock: bool = False
    since: float = 0.0


LOCK = "lock:"
"""Start of the name of a lock."""

LIMIT = "limit:"
"""Start of the name of a limit."""

SEPARATOR = "\x1f"
"""Character between the task and the key in the name of a limit."""


def groups_of(task_name: str, lock_key: object, concurrency_key: object) -> tuple[str, ...]:
    """Return the groups of a task with these keys: the lock first, so that it is taken in order. None stands for no group."""
    lock = (LOCK + lock_key,) if isinstance(lock_key, str) else ()
    if not isinstance(concurrency_key, str):
        return lock
    return (*lock, f"{LIMIT}{task_name}{SEPARATOR}{concurrency_key}")


def stored_entry(row: Any, run_at: float = 0.0, epoch: int | None = None) -> Entry:
    """Return the entry of a row of the record, which anybody may have changed; `epoch` is the row's by default."""
    key, weight = row.fairness_key, row.fairness_weight
    return Entry(
        row.agent_id,
        stored_priority(row.priority),
        run_at,
        row.epoch if epoch is None else epoch,
        key if isinstance(key, str) and key else None,
        weight if isinstance(weight, float | int) and MIN_WEIGHT <= weight <= MAX_WEIGHT else 1.0,
        groups_of(row.agent_type, row.lock_key, row.concurrency_key),
        row.held_lock is not None and row.held_lock == row.lock_key,
    )


class Lease(NamedTuple):
    """Claim on a task. The holder of the highest epoch owns the task."""

    agent_id: UUID
    epoch: int


CURRENT_LEASE: ContextVar[Lease | None] = ContextVar("agentexec_lease", default=None)
"""Lease of the running handler and everything it calls."""


class Task(BaseModel):
    """Handle of an accepted task, as `enqueue` returns it."""

    agent_id: UUID
    task_name: str
    queue_name: str


class HandlerOptions(TypedDict, total=False):
    """Options of a handler; each may be left out."""

    retries: int | None
    """Further attempts after one that raised, with growing pauses; 0 by default."""

    retry_on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None
    """Errors that are retried: classes, or a function that is given the error. By default all of them. Of a group of
    errors, each must be retried."""

    backoff: float | timedelta | Callable[[int], float | timedelta] | None
    """Pause before the next attempt, in seconds or as a timedelta, or a function that is given the number of failed
    attempts, 1 after the first. By default 2, 4, 8 … up to 300 seconds, less up to a fifth at random."""

    timeout: float | None
    """Seconds for one attempt of an async handler; no limit by default."""

    on_failure: Callable[..., Any] | str | None
    """Handler that is called once the task has failed for good, in a task of its own, or the name of a task. It gets the
    failure as its context, an [`ax.TaskFailure`][agentexec.TaskFailure]."""

    debounce: float | timedelta | None
    """Seconds (or a timedelta) by which a task waits for further enqueues: these are merged into it, and it runs that long after
    the last one, with the last context. It applies where a process enqueues that has the pool."""

    debounce_key: str | None
    """Enqueues of the task with the same key are merged, such as "doc:{doc_id}", with fields of the context in braces; by default
    all of them."""

    debounce_max: float | timedelta | None
    """Longest time for which further enqueues delay a task; no limit by default."""

    webhook: str | None
    """URL that is told of the end of each task, see the guide on failures. It applies where a process enqueues that has the
    pool, and `webhook` of `enqueue` takes precedence."""

    expires: float | timedelta | None
    """Seconds (or a timedelta) after which a task that has not started is canceled. It applies where a process enqueues that
    has the pool, and `expires` of `enqueue` takes precedence."""

    fairness_key: str | None
    """Owner of the task, such as "{tenant}", with fields of the context in braces. The tasks of each key take turns with
    those of the others, so that nobody's backlog delays anybody else. By default the tasks have no key."""

    lock_key: str | None
    """Lock of the task, such as "user:{user_id}", with fields of the context in braces. Tasks with the same one run one at a
    time, first in, first out, on all hosts. By default the tasks have no lock."""

    concurrency: int | None
    """Tasks of this name that may run at once, in all workers together; no limit by default. With `concurrency_key`, those with
    the same key."""

    concurrency_key: str | None
    """Key of the limit, such as "{tenant}", with fields of the context in braces."""

    fairness_weight: float | Mapping[str, float] | None
    """Tasks of a key in each turn, 0.001 to 1000, or a mapping with the weights of some keys; 1 by default."""

    budget: str | None
    """Limit of what the agents of one task may spend, with those of its children, like "$2.00" or "500000 tokens"; no limit by
    default. `budget` of `enqueue` takes precedence."""

    on_budget: Literal["fail", "wrap_up", "ask"] | None
    """Policy at the limit of a budget: "fail", the default, ends the task with
    [`ax.BudgetExceededError`][agentexec.BudgetExceededError], "wrap_up" lets the agent answer with what it has, in one last model
    call without tools, and "ask" asks a person to raise the limit, as an approval."""

    version: str | None
    """Version of the task's code, such as "3": the record of each run has the one that it began with. By default
    `AGENTEXEC_WORKER_VERSION` of the worker."""

    on_divergence: DivergencePolicy | Restart | None
    """Policy for a run that the code at hand cannot replay, by default `AGENTEXEC_ON_DIVERGENCE`: "fail" ends the attempt with
    [`ax.ReplayDivergedError`][agentexec.ReplayDivergedError], "restart" keeps the old journal as history and begins the run with
    nothing, "ask" asks a person first. [`ax.Restart`][agentexec.Restart] has more to choose."""

    approvals: ApprovalPolicy | None
    """Policy of approvals: which tools ask a person, and what happens to questions that nobody answers. It takes precedence over
    `approvals` of the pool."""

    queue: str | None
    """Queue to which these tasks are enqueued in a process that has the pool, unless `enqueue` is given `queue_name`; by
    default that of the pool."""


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """Registered handler and its options.

    `retries` is the number of further attempts after one that raised; `timeout` is the limit of one attempt in seconds,
    None for no limit.
    """

    name: str
    handler: Callable[..., Any]
    is_async: bool
    context: Codec
    result: Codec
    retries: int = 0
    timeout: float | None = None
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None = None
    backoff: float | Callable[[int], float | timedelta] | None = None
    lock_key: str | None = None
    concurrency: int | None = None
    concurrency_key: str | None = None
    fairness_key: str | None = None
    fairness_weight: float | Mapping[str, float] = 1.0
    budget: TaskBudget = NO_BUDGET
    version: str | None = None
    on_divergence: DivergencePolicy | Restart | None = None
    approvals: ApprovalPolicy = NO_POLICY
    queue: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    expires: float | None = None
    debounce: Debounce | None = None
    webhook: str | None = None
    on_failure: str | None = None
    """Name of the task that is enqueued when this one has failed."""


class ScheduleOptions(TypedDict, total=False):
    """Options of a schedule; each may be left out."""

    task: str
    """Name of the task that each tick enqueues; by default that of the schedule."""

    context: Any
    """Context of the tasks; by default none, or an empty object if the handler takes one."""

    metadata: Mapping[str, Any] | None
    """Labels of the tasks."""

    priority: Priority
    """Priority of the tasks; LOW by default."""

    timezone: str
    """Time zone in which a cron expression is read, like "Europe/Berlin"; UTC by default."""

    repeat: int | None
    """Number of tasks after which the schedule ends; None or -1, the default, for no end."""

    backfill: bool
    """True to enqueue a task for each tick that was missed while no worker ran. By default these are skipped."""


@dataclass(frozen=True, slots=True)
class ScheduleDefinition:
    """Declared schedule: its ticks, and the task that each of them enqueues.

    `cron` is a cron expression, or "@every SECONDS"; `context` is JSON text; `repeat` None means no end.
    """

    name: str
    task_name: str
    cron: str
    timezone: str
    context: str | None
    metadata: dict[str, Any] | None
    priority: Priority
    repeat: int | None
    backfill: bool


def require_known_options(function: str, options: Mapping[str, Any], *, accepts: Any) -> None:
    """Raise TypeError for an option that a function does not accept, as Python does for an unknown keyword.

    `accepts` is the TypedDict of the options.
    """
    if not options.keys() <= accepts.__optional_keys__:
        unknown = sorted(options.keys() - accepts.__optional_keys__)
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}")


def agent_id_of(task: Task | UUID | str) -> UUID:
    """Return the agent_id of a task that is named by its handle or agent_id; raises UsageError for a text that is not one."""
    return task.agent_id if isinstance(task, Task) else parse_agent_id(task)


def parse_agent_id(agent_id: UUID | str) -> UUID:
    """Return an agent_id as a UUID. Raises UsageError for a text that is not a UUID."""
    try:
        return agent_id if isinstance(agent_id, UUID) else UUID(str(agent_id))
    except Exception:  # whatever the object's text raises
        raise UsageError(
            f"{shown(agent_id)} is not an agent_id; an agent_id looks like 0190a6e2-7d4f-7c3a-9d55-0242ac120002."
        ) from None


def new_agent_id() -> UUID:
    """Return a new UUID of version 7: random, and ordered by time, so the database fills its index pages in order."""
    millis = time.time_ns() // 1_000_000
    value = (millis & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | (0x7 << 76)
    return UUID(int=value & ~(0x3 << 62) | (0x2 << 62))
