"""An odd argument is one AgentexecError that names it, before anything is written, whatever the database."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, field_serializer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLog
from agentexec.client.approvals import list_approvals
from agentexec.journal.models import SentEvent, TrackerCount
from agentexec.runtime import RUNTIME

HALF = "a\ud800"
"""Text with half of a surrogate pair."""


class Hostile:
    """Object that raises a foreign error whatever is done with it."""

    def __str__(self) -> str:
        raise KeyError("hostile")

    __repr__ = __str__


class Unwritable(BaseModel):
    """Model whose serializer raises."""

    number: int = 1

    @field_serializer("number")
    def write(self, _number: int) -> int:
        raise KeyError("unwritable")


class Halved(BaseModel):
    """Model with a text that no database can store."""

    text: str = HALF


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = ENDLESS

TASK_OPTIONS: dict[str, list[Any]] = {
    "delay": [
        math.nan,
        math.inf,
        -math.inf,
        1e300,
        -1e300,
        10**400,
        "5",
        b"5",
        True,
        Decimal(5),
        timedelta.max,
        timedelta.min,
        [1],
        Hostile(),
    ],
    "eta": [
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(2030, 1, 1),
        date(2030, 1, 1),
        "2030-01-01T00:00:00Z",
        0,
    ],
    "priority": [7, "urgent", "", None, True, [], math.nan, Hostile()],
    "queue_name": ["\0", HALF, "x" * 101, "q ", 5, b"q", ["q"]],
    "metadata": [
        [],
        "x",
        {1: 2},
        {None: 1},
        {"a": {1: 2}},
        {"a": [{2: 3}]},
        {"a": math.nan},
        {"a": "\0"},
        {"a\0": 1},
        {"a": HALF},
        {HALF: 1},
        {"a ": 1},
        {"a": [HALF]},
        {"a": 10**5000},
        {"a": {1, 2}},
        {"a": b"x"},
        {"a": Hostile()},
        {"a": Unwritable()},
        nested(31),
        nested(100_000),
        ENDLESS,
        {f"key {number}": number for number in range(65)},
        {"a": "x" * 2_000_000},
    ],
    "detached": ["no", 1, None],
}
TASK_NAMES = ["", "\0", HALF, "x" * 201, "t ", 5, None, b"t", ["t"], Hostile()]
CONTEXTS = [
    5,
    "x",
    [1],
    nested(100_000),
    ENDLESS,
    Unwritable(),
    Halved(),
    {"a": HALF},
    {"a": math.nan},
    {"a": 10**5000},
    {"a": b"x"},
    {"a": Hostile()},
    {"a": object()},
]
KEYS = ["", "\0", HALF, "x" * 201, "k ", 5, b"k", ["k"], uuid4()]
NUMBERS = [math.nan, math.inf, 1e300, 10**400, "5", b"5", True, Decimal(5), [1], Hostile()]
"""Values that are no times."""

COUNTS = ["5", 1.5, math.nan, 10**30, -(10**30), True, None, Hostile()]
"""Values that are no whole numbers, or too large for a database."""

TEXTS = [5, b"x", ["x"], Hostile()]
FILTERS = [
    "x",
    "",
    [],
    (),
    [("a", "b")],
    set(),
    b"",
    5,
    0,
    False,
    Hostile(),
    {1: 2},
    {"a": None},
    {"a": [1]},
    {"a": b"x"},
    {"a": 10**5000},
    {"a": math.nan},
    {"a": math.inf},
    {"a": Hostile()},
    nested(100_000),
    {f"key {number}": number for number in range(65)},
    {f"key {number}": number for number in range(10_000)},
    {"a": "x" * 2_000_000},
    {"x" * 2_000_000: 1},
]
"""Values that are no filters. An empty one must not let every tenant's tasks through."""

LONG_TEXTS = [wildcard * 48_000 for wildcard in "%_*\\x"]
"""Texts that some databases refuse as a pattern."""

IDS = ["", "x", 5, None, b"x", HALF, "\0", Hostile(), [uuid4()]]
TYPES = [5, "int", Hostile(), object()]


def events_of(**options: Any) -> Any:
    return next(iter(ax.activity.stream(**options)))


async def as_completed(**options: Any) -> Any:
    return [done async for done in ax.as_completed(timeout=0, **options)]


def as_completed_sync(**options: Any) -> Any:
    return list(ax.as_completed_sync(timeout=0, **options))


Row = tuple[Callable[..., Any], dict[str, Any], str, list[Any]]


def rows(db: Session) -> Iterator[Row]:
    """Yield functions with their other arguments, the name of an argument, and odd values of it."""
    task = ax.enqueue_sync("work")
    pipeline: Any = ax.Pipeline(ax.Pool(engine=RUNTIME.engine), "pipeline")
    for enqueue in (ax.enqueue_sync, ax.enqueue):
        yield enqueue, {}, "task_name", TASK_NAMES
        yield enqueue, {"task_name": "work"}, "context", CONTEXTS
        yield enqueue, {"task_name": "work"}, "idempotency_key", KEYS
        yield enqueue, {"task_name": "work"}, "session", [5, "x", object()]
        yield from ((enqueue, {"task_name": "work"}, name, values) for name, values in TASK_OPTIONS.items())
    for many in (ax.enqueue_many_sync, ax.enqueue_many, ax.map_sync, ax.map):
        given = {"task_name": "work", "contexts": [{}]}
        yield many, {"contexts": [{}]}, "task_name", TASK_NAMES
        yield many, {"task_name": "work"}, "contexts", [5, None]
        yield from ((many, given, name, values) for name, values in TASK_OPTIONS.items())
    for fan_out in (ax.map_sync, ax.map):
        given = {"task_name": "work", "contexts": [{}]}
        yield fan_out, given, "timeout", NUMBERS
        yield fan_out, given, "max_in_flight", [0, -1, *(value for value in COUNTS if value is not None)]
    for enqueue in (pipeline.enqueue_sync, pipeline.enqueue):
        yield from ((enqueue, {}, name, values) for name, values in TASK_OPTIONS.items())
    for wait in (ax.get_result_sync, ax.get_result):
        yield wait, {"task": task}, "timeout", NUMBERS
        yield wait, {"task": task, "timeout": 0}, "type", TYPES
    for gather in (ax.gather_sync, ax.gather):
        yield gather, {}, "timeout", NUMBERS
        yield gather, {}, "metadata_filter", FILTERS
    yield as_completed, {"tasks": []}, "metadata_filter", FILTERS
    yield as_completed_sync, {"tasks": [task]}, "metadata_filter", FILTERS
    for by_id in (ax.get_result, ax.cancel, ax.cancel_sync, ax.retry, ax.retry_sync):
        yield by_id, {}, "task", IDS
        yield by_id, {"task": task}, "metadata_filter", FILTERS
    for answer in (ax.approve, ax.approve_sync, ax.reject, ax.reject_sync):
        yield answer, {"call_id": "c"}, "task", IDS
        yield answer, {"task": task}, "call_id", [*TEXTS, None, "\0", HALF]
        yield answer, {"task": task, "call_id": "c"}, "metadata_filter", FILTERS
    yield ax.reject, {"task": task, "call_id": "c"}, "message", [*TEXTS, "x" * 2_000_000]
    for listing in (ax.activity.list,):
        yield listing, {"db": db}, "page", [0, -1, 2**63, *COUNTS]
        yield listing, {"db": db}, "page_size", [0, 1001, *COUNTS]
        yield listing, {"db": db}, "status", ["done", "", 5, [], Hostile()]
        yield listing, {"db": db}, "task_name", [*TEXTS, *LONG_TEXTS]
        yield listing, {"db": db}, "text", [*TEXTS, *LONG_TEXTS, "%" * 501]
        yield listing, {"db": db}, "after", ["x", 5, HALF, "\0", b"x", "eA==", "x" * 10_000_000]
        yield listing, {"db": db}, "metadata_filter", FILTERS
        for moment in ("created_after", "created_before"):
            yield listing, {"db": db}, moment, TASK_OPTIONS["eta"]
    yield list_approvals, {"db": db}, "limit", [0, -1, *COUNTS]
    yield list_approvals, {"db": db}, "metadata_filter", FILTERS
    yield ax.activity.detail, {"db": db}, "agent_id", IDS
    yield ax.activity.detail, {"db": db, "agent_id": task.agent_id}, "metadata_filter", FILTERS
    yield ax.activity.active_count, {"db": db}, "metadata_filter", FILTERS
    yield ax.activity.spent, {"db": db}, "metadata_filter", FILTERS
    yield ax.activity.spent, {"db": db}, "minutes", [0, 2**31, *COUNTS]
    yield ax.activity.overview, {"db": db}, "minutes", [0, 61, *COUNTS]
    yield ax.activity.overview, {"db": db}, "metadata_filter", FILTERS
    yield ax.activity.prune, {"db": db}, "older_than", [5, "30d", None, timedelta(days=-1), timedelta.max]
    for remove in (ax.activity.prune, ax.activity.prunable):
        yield remove, {"db": db, "older_than": timedelta()}, "metadata_filter", FILTERS
    yield ax.activity.cancel_pending, {"db": db}, "metadata_filter", FILTERS
    yield ax.activity.create, {}, "task_name", TASK_NAMES
    yield ax.activity.create, {"task_name": "own"}, "metadata", TASK_OPTIONS["metadata"]
    own = ax.activity.create("own")
    yield ax.activity.update, {"message": "x"}, "agent_id", IDS
    yield ax.activity.update, {"agent_id": own, "message": "x"}, "percentage", NUMBERS[:2] + NUMBERS[4:]
    yield (
        events_of,
        {"agent_id": own},
        "after",
        ["x", 5, HALF, b"x", "1.٣", "9" * 19 + ".0", "1." + "9" * 1_000_000],
    )
    yield events_of, {"agent_id": own}, "metadata_filter", FILTERS
    for unit in ("seconds", "minutes", "hours", "days"):
        yield ax.sleep, {}, unit, [*NUMBERS, None, timedelta(1)]
    for send in (ax.send_event_sync, ax.send_event):
        yield send, {}, "name", ["", "\0", HALF, "x" * 256, "n ", *TEXTS]
        yield send, {"name": "event"}, "key", ["\0", HALF, "x" * 256, "k ", None, *TEXTS]
        unwritable = [
            object(),
            "\0",
            10**5000,
            nested(100_000),
            ENDLESS,
            Unwritable(),
            Hostile(),
            "x" * 2_000_000,
        ]
        yield send, {"name": "event"}, "value", unwritable
    yield ax.Tracker, {}, "name", ["", "\0", HALF, *TEXTS]
    for count in (ax.Tracker("count").incr, ax.Tracker("count").decr):
        yield count, {}, "amount", COUNTS
    for name, values in TASK_OPTIONS.items():
        if name in ("priority", "queue_name", "metadata"):
            yield ax.Tracker("count").on_complete, {"task_name": "work"}, name, values
    yield ax.RetryLater, {}, "seconds", [*NUMBERS, -1, None]


TABLES = (Activity, ActivityLog, SentEvent, TrackerCount)


def row_counts(db: Session) -> list[int | None]:
    db.rollback()
    return [db.scalar(select(func.count()).select_from(table)) for table in TABLES]


async def outcome(function: Callable[..., Any], arguments: dict[str, Any], name: str) -> str:
    """Return what is wrong with the answer to an odd argument; an empty text if it is right."""
    try:
        result = function(**arguments)
        if inspect.isawaitable(result):
            result = await asyncio.wait_for(result, 10)
    except ax.AgentexecError as error:
        text = str(error).replace("agent_id", "task agent_id")
        return "" if name in text and len(text.splitlines()) == 1 else f"does not name {name}: {text[:200]}"
    except BaseException as error:
        return f"raises {type(error).__name__}: {str(error)[:200]}"
    return f"accepts it and returns {result!r:.200}"


async def test_an_odd_argument_is_one_error_that_names_it_before_anything_is_written(tables_url: str) -> None:
    ax.configure(database_url=tables_url)
    with Session(RUNTIME.engine) as db:
        wrong: list[str] = []
        for function, others, name, values in list(rows(db)):
            before = row_counts(db)
            for number, value in enumerate(values):
                complaint = await outcome(function, {**others, name: value}, name)
                if complaint:
                    wrong.append(f"{function.__qualname__}({name}= number {number}) {complaint}")
            if row_counts(db) != before:
                wrong.append(f"{function.__qualname__}({name}=) has written something")
        assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


async def test_bad_tasks_fail_alone_among_many_that_are_enqueued_at_once(tables_url: str) -> None:
    ax.configure(database_url=tables_url)
    odd: list[dict[str, Any]] = [
        {"idempotency_key": HALF},
        {"metadata": {HALF: 1}},
        {"metadata": {"key": HALF}},
        {"task_name": HALF},
        {"delay": math.nan},
    ]
    calls = [
        {"task_name": "work", **(odd[number // 5 % 5] if number % 5 == 0 else {})} for number in range(200)
    ]
    outcomes = await asyncio.gather(*(ax.enqueue(**call) for call in calls), return_exceptions=True)
    refused = [result for result in outcomes if isinstance(result, BaseException)]
    assert len(refused) == 40
    assert all(isinstance(error, ax.AgentexecError) for error in refused), refused
    with Session(RUNTIME.engine) as db:
        assert ax.activity.list(db, page_size=1).total == 160


async def test_a_value_that_only_the_database_refuses_fails_its_own_task(
    tables_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ax.configure(database_url=tables_url)
    # As if a check were missing: these values reach the driver, in transactions that they share with others.
    monkeypatch.setattr("agentexec.client.new_task.check_text", lambda _name, value, _limit: value)
    calls = [{"idempotency_key": HALF if number % 10 == 0 else f"key {number}"} for number in range(100)]
    outcomes = await asyncio.gather(*(ax.enqueue("work", **call) for call in calls), return_exceptions=True)  # type: ignore[arg-type]
    refused = [result for result in outcomes if isinstance(result, BaseException)]
    assert len(refused) == 10
    for error in refused:
        assert isinstance(error, ax.UsageError)
        assert "Task work could not be recorded" in str(error)
    with Session(RUNTIME.engine) as db:
        assert ax.activity.list(db, page_size=1).total == 90


async def test_arguments_at_their_limits_are_accepted_and_come_back(tables_url: str) -> None:
    ax.configure(database_url=tables_url)
    metadata = {
        "deep": nested(28),
        "clé 🔑": "🎉",
        "": 10**30,
        "id": uuid4(),
        "at": datetime(2030, 1, 1, tzinfo=UTC),
    }
    limits: list[dict[str, Any]] = [
        {"eta": datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)},
        {"eta": datetime(1970, 1, 1, tzinfo=UTC)},
        {"delay": 3_000_000_000},
        {"delay": timedelta(days=-1)},
        {"priority": 0, "queue_name": "🎉" * 100, "idempotency_key": "é" * 200},
        {"metadata": metadata},
    ]
    for options in limits:
        task = await ax.enqueue("é" * 200, **options)
        with Session(RUNTIME.engine) as db:
            found = ax.activity.detail(db, task.agent_id)
            assert found.task_name == "é" * 200
            if "metadata" in options:
                assert found.metadata == {
                    **metadata,
                    "id": str(metadata["id"]),
                    "at": "2030-01-01T00:00:00+00:00",
                }
                assert ax.activity.list(db, metadata_filter={"clé 🔑": "🎉"}).total == 1
