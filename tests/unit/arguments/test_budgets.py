"""Budgets as users write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from agentexec.arguments.budgets import (
    MAX_ACCOUNT,
    MAX_TITLE,
    NANOS,
    NO_BUDGET,
    Limit,
    TaskBudget,
    Window,
    accounts_of_labels,
    bounds,
    checked_limit,
    checked_policy,
    dump_budget,
    effective_budget,
    format_amount,
    inherit_budget,
    load_budget,
    parse_limit,
    parse_windows,
    short_title,
    without_ancestors,
)
from agentexec.errors import UsageError

PARENT, GRANDPARENT = UUID(int=1), UUID(int=2)
NOON = datetime(2026, 2, 28, 12, 34, 56, 789, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("$2.00", Limit("dollars", 2 * NANOS)),
        (" $ 0.000000001 ", Limit("dollars", 1)),
        ("$1000", Limit("dollars", 1000 * NANOS)),
        ("500000 tokens", Limit("tokens", 500_000)),
        ("1 token", Limit("tokens", 1)),
        ("2000000TOKENS", Limit("tokens", 2_000_000)),
    ],
)
def test_limits_are_dollars_or_tokens(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize(
    "text",
    ["", "2", "$", "$0", "0 tokens", "$-1", "$1.2345678901", "2 EUR", "$1e3", "$99999999999"],
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="budget="):
        checked_limit("budget=", text)


@pytest.mark.parametrize(
    "text",
    ["$1_000", "1_000 tokens", "$1,000", "$\u0662", "$2.\u0665", "\u0665 tokens", "5 token\u017f"],
)
def test_digits_that_people_read_differently_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="budget="):
        checked_limit("budget=", text)


def test_other_types_and_policies_are_refused() -> None:
    assert (checked_limit("budget=", None), checked_policy("on_budget=", None)) == (None, None)
    for value in (2, 2.0, True, b"$2"):
        with pytest.raises(UsageError, match=r'a text like "\$2.00"'):
            checked_limit("budget=", value)
    for value in ("stop", 1, ["ask"]):
        with pytest.raises(UsageError, match='"fail", "wrap_up" or "ask"'):
            checked_policy("on_budget=", value)


def test_windows_name_a_label_a_limit_and_a_period() -> None:
    assert parse_windows("tenant=$50/day; * = 2000000 tokens / HOUR;") == (
        Window("tenant", Limit("dollars", 50 * NANOS), "day"),
        Window("*", Limit("tokens", 2_000_000), "hour"),
    )
    assert parse_windows("a=b=$1/week") == (Window("a=b", Limit("dollars", NANOS), "week"),)
    assert parse_windows("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "tenant",
        "tenant=$50",
        "=$50/day",
        "tenant=$50/year",
        "tenant=50/day",
        "x=$1/day;x=$2/day",
        "x=5 tokens/day,*=$3/day",
    ],
)
def test_windows_that_say_too_little_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_windows(text)


@pytest.mark.parametrize(
    ("period", "begin", "end"),
    [
        ("minute", "2026-02-28T12:34", "2026-02-28T12:35"),
        ("hour", "2026-02-28T12:00", "2026-02-28T13:00"),
        ("day", "2026-02-28T00:00", "2026-03-01T00:00"),
        ("week", "2026-02-23T00:00", "2026-03-02T00:00"),
        ("month", "2026-02-01T00:00", "2026-03-01T00:00"),
    ],
)
def test_periods_are_those_of_the_calendar(period: str, begin: str, end: str) -> None:
    found = bounds(period, NOON)  # ty: ignore[invalid-argument-type]
    assert [f"{moment:%Y-%m-%dT%H:%M}" for moment in found] == [begin, end]


def test_a_task_counts_for_the_windows_of_its_labels() -> None:
    windows = parse_windows("tenant=$50/day; *=$500/day; user=1 tokens/hour; team=$1/day; of=$1/day")
    found = accounts_of_labels(windows, {"tenant": "acme", "user": 7, "of": None}, NOON)
    assert [(name, title) for name, title, *_ in found] == [
        ("tenant=acme/dollars/day/2026-02-28T00:00", "tenant=acme"),
        ("*/dollars/day/2026-02-28T00:00", "*"),
        ("user=7/tokens/hour/2026-02-28T12:00", "user=7"),
    ]
    [(long, *_)] = accounts_of_labels(windows[:1], {"tenant": "x" * 300}, NOON)
    [(other, *_)] = accounts_of_labels(windows[:1], {"tenant": "x" * 301}, NOON)
    assert len(long) <= MAX_ACCOUNT
    assert long != other


@pytest.mark.parametrize(
    ("value", "title"),
    [(["acme"], '["acme"]'), ([], "[]"), ({"b": 1, "a": "ä"}, '{"a":"ä","b":1}'), (False, "false")],
)
def test_a_label_that_is_a_list_does_not_escape_its_window(value: Any, title: str) -> None:
    [(_, found, *_)] = accounts_of_labels(parse_windows("tenant=$50/day"), {"tenant": value}, NOON)
    assert found == f"tenant={title}"


def test_a_long_label_is_shortened_where_people_read_it() -> None:
    [(_, title, *_)] = accounts_of_labels(parse_windows("tenant=$50/day"), {"tenant": "x" * 9999}, NOON)
    assert (len(title), title[-2:]) == (MAX_TITLE, "x…")
    assert short_title(title) == f"tenant={'x' * 52}…"
    assert short_title("tenant=acme") == "tenant=acme"


def test_a_budget_comes_back_as_it_was_stored() -> None:
    budget = TaskBudget(parse_limit("$2"), "ask", ((PARENT, parse_limit("5 tokens")),))
    assert load_budget(dump_budget(budget)) == budget
    assert dump_budget(NO_BUDGET) is None
    assert load_budget(None) == NO_BUDGET


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        '{"limit": "$2"}',
        '{"limit": ["dollars", 0]}',
        '{"limit": ["euros", 5]}',
        '{"limit": ["tokens", true]}',
        '{"on_budget": "never"}',
        '{"on_budget": ["ask"]}',
        '{"ancestors": [["x", "tokens", 1]]}',
        '{"ancestors": 7}',
        "[" * 100_000,
    ],
)
def test_a_damaged_budget_is_not_taken_for_none(text: str) -> None:
    with pytest.raises(ValueError, match="damaged"):
        load_budget(text)


def test_a_child_counts_for_its_parents_and_takes_over_their_policy() -> None:
    parent = TaskBudget(parse_limit("$2"), "wrap_up", ((GRANDPARENT, parse_limit("$9")),))
    child = inherit_budget(NO_BUDGET, PARENT, parent)
    assert child == TaskBudget(
        None, "wrap_up", ((PARENT, parse_limit("$2")), (GRANDPARENT, parse_limit("$9")))
    )
    assert inherit_budget(TaskBudget(None, "fail"), PARENT, parent).on_budget == "fail"
    assert effective_budget(child, TaskBudget(parse_limit("$1"), "ask")) == child._replace(
        limit=parse_limit("$1")
    )


def test_a_fork_keeps_the_budget_and_not_those_of_parents() -> None:
    budget = TaskBudget(parse_limit("$2"), "ask", ((PARENT, parse_limit("5 tokens")),))
    assert without_ancestors(dump_budget(budget)) == dump_budget(TaskBudget(parse_limit("$2"), "ask"))
    assert without_ancestors(None) is None
    assert without_ancestors("damaged") == "damaged"


@pytest.mark.parametrize(
    ("unit", "amount", "text"),
    [
        ("dollars", 2 * NANOS, "$2.00"),
        ("dollars", 1_234_567_890_000, "$1,234.5679"),
        ("dollars", 75, "$0.000000075"),
        ("dollars", 0, "$0.00"),
        ("dollars", -NANOS, "-$1.00"),
        ("tokens", 1_500_000, "1,500,000 tokens"),
    ],
)
def test_amounts_for_people(unit: str, amount: int, text: str) -> None:
    assert format_amount(unit, amount) == text
