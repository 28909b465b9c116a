"""Ticks come when cron says, in the schedule's time zone, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentexec.errors import UsageError
from agentexec.schedules.ticks import check_spec, check_zone, last_tick, missed_ticks, ticks_after

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def some_ticks(spec: str, zone: str, after: str, number: int) -> list[str]:
    return [f"{tick:%m-%d %H:%M}" for tick in islice(ticks_after(spec, zone, utc(after)), number)]


def test_a_tick_of_the_hour_that_clocks_skip_comes_at_its_end() -> None:
    assert some_ticks("30 2 * * *", BERLIN, "2026-03-27T12:00", 3) == [
        "03-28 01:30",
        "03-29 01:00",
        "03-30 00:30",
    ]


def test_a_fixed_time_in_the_hour_that_clocks_repeat_ticks_once() -> None:
    assert some_ticks("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]


def test_a_tick_every_half_hour_also_comes_in_the_hour_that_clocks_repeat() -> None:
    assert some_ticks("*/30 * * * *", BERLIN, "2026-10-24T23:50", 5) == [
        "10-25 00:00",
        "10-25 00:30",
        "10-25 01:00",
        "10-25 01:30",
        "10-25 02:00",
    ]


def test_intervals_are_counted_from_tick_to_tick() -> None:
    assert some_ticks("@every 5400", BERLIN, "2026-03-28T23:00", 3) == [
        "03-29 00:30",
        "03-29 02:00",
        "03-29 03:30",
    ]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("*/5 * * * *", "*/5 * * * *"),
        ("  0   8 * *  1-5 ", "0 8 * * 1-5"),
        ("*/10 * * * * *", "*/10 * * * * *"),
        ("@daily", "0 0 * * *"),
        ("@Hourly", "0 * * * *"),
        (timedelta(minutes=5), "@every 300"),
        (timedelta(seconds=1.5), "@every 1.5"),
        (timedelta(days=30, seconds=1), "@every 2592001"),
        (timedelta(days=365, seconds=59, milliseconds=1), "@every 31536059.001"),
    ],
)
def test_specs_are_taken(spec: object, text: str) -> None:
    assert check_spec(spec) == text


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "x",
        "* * * *",
        "61 * * * *",
        "0 0 31 2 *",
        "@never",
        "* " * 200,
        5,
        None,
        timedelta(0),
        timedelta(-1),
        timedelta.max,
        timedelta(milliseconds=10),
        b"* * * * *",
        "@every 5",
        "\ud800 * * * *",
    ],
)
def test_other_specs_are_refused_in_a_sentence(spec: object) -> None:
    with pytest.raises(UsageError, match=r"cron"):
        check_spec(spec)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "x" * 100, 5, "/etc/localtime"])
def test_unknown_time_zones_are_refused_in_a_sentence(zone: object) -> None:
    with pytest.raises(UsageError, match=r"time zone|timezone="):
        check_zone(zone)


SPECS = ["*/5 * * * *", "0 8 * * 1-5", "30 2 * * *", "0 */6 1,15 * *", "@every 90"]


@given(st.sampled_from(SPECS), st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.integers(0, 30))
def test_the_last_tick_is_the_one_that_going_through_all_of_them_finds(
    spec: str, start: datetime, number: int
) -> None:
    start = start.replace(tzinfo=UTC)
    first, *later = islice(ticks_after(spec, BERLIN, start), number + 2)
    for moment in (first, *later):
        assert last_tick(spec, BERLIN, first, moment) == moment
    before_last = later[-1] - timedelta(microseconds=1)
    assert last_tick(spec, BERLIN, first, before_last) == ([first, *later][-2])


def test_the_last_tick_of_years_is_found_at_once() -> None:
    first = utc("2016-01-01T00:00")
    assert last_tick("* * * * * *", "UTC", first, utc("2026-01-01T00:00")) == utc("2026-01-01T00:00")


def test_missed_ticks_are_bounded() -> None:
    first = utc("2026-01-01T00:00")
    found = missed_ticks("* * * * *", "UTC", first, utc("2026-02-01T00:00"), 100)
    assert len(found) == 100
    assert found[0] == first
    assert missed_ticks("0 * * * *", "UTC", first, utc("2026-01-01T02:30"), 100) == [
        first,
        utc("2026-01-01T01:00"),
        utc("2026-01-01T02:00"),
    ]
