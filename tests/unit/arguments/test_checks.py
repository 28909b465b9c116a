"""Arguments are used as they are meant, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest

from agentexec.arguments.checks import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_SECONDS,
    check_depth,
    check_flag,
    check_integer,
    check_mapping,
    check_moment,
    check_number,
    check_seconds,
    check_size,
    check_storable,
    check_text,
    check_timeout,
    dump_json,
    shown,
)
from agentexec.errors import PayloadTooLargeError, UsageError

TIME = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("check", "given", "used"),
    [
        (lambda value: check_text("x=", value, 3), "abc", "abc"),
        (lambda value: check_storable("x=", value), "研究 ", "研究 "),
        (lambda value: check_number("x=", value), Fraction(1, 2), 0.5),
        (lambda value: check_integer("x=", value), 7, 7),
        (lambda value: check_seconds("x=", value), timedelta(minutes=1), 60.0),
        (lambda value: check_seconds("x=", value), -5, -5.0),
        (lambda value: check_timeout("x=", value), -5, 0.0),
        (lambda value: check_timeout("x=", value), None, None),
        (lambda value: check_moment("x=", value), TIME, datetime(2026, 1, 1, 10, tzinfo=UTC)),
        (lambda value: check_flag("x=", value), False, False),
        (lambda value: dump_json("x=", value), {"a": [1]}, '{"a": [1]}'),
    ],
)
def test_a_proper_value_is_used(check: Callable[[Any], Any], given: Any, used: Any) -> None:
    assert check(given) == used


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (lambda value: check_text("x=", value, 3), [None, b"a", "", "abcd", "a ", "\x00", "\ud800"]),
        (lambda value: check_number("x=", value), [math.nan, math.inf, "1", True, None, 10**400]),
        (lambda value: check_integer("x=", value), [0, -1, MAX_INTEGER + 1, 10**5000, 1.0, True, "1"]),
        (lambda value: check_seconds("x=", value), [2 * MAX_SECONDS, math.nan, timedelta.max, "1s"]),
        (
            lambda value: check_moment("x=", value),
            [datetime(2026, 1, 1), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), 1e9],
        ),
        (lambda value: check_flag("x=", value), ["false", 0, None]),
        (lambda value: check_mapping("x=", value), [[], {1: 2}, "a"]),
        (lambda value: dump_json("x=", value), [math.nan, {1, 2}, object()]),
        (lambda value: check_depth("x=", value), ["[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)]),
    ],
)
def test_an_odd_value_is_refused_by_the_name_of_its_argument(
    check: Callable[[Any], Any], values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(UsageError, match=r"^x= "):
            check(value)


def test_brackets_within_texts_do_not_count_as_depth() -> None:
    check_depth("x=", '["' + "[" * 2 * MAX_DEPTH + '\\"["]')


def test_a_size_is_measured_in_bytes() -> None:
    check_size("x=", "a" * 10, 10)
    with pytest.raises(PayloadTooLargeError, match=r"^x= is 12 bytes of JSON"):
        check_size("x=", "研" * 4, 10)


def test_a_value_in_a_message_is_short_and_printable() -> None:
    assert shown("研") == "'\\u7814'"
    assert len(shown("a" * 1000)) == 62
