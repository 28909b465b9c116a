"""Numbers and bars of the monitor."""

from __future__ import annotations

import pytest

from agentexec.cli.screen.view import (
    format_bytes,
    format_cost,
    format_count,
    format_duration,
    progress_bar,
    sparkline,
)
from agentexec.task import Status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (5.9, "5s"), (192, "3m12s"), (7_500, "2h05m"), (356_400, "4d03h")],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1_000, "1.0k"), (2_500_000, "2.5M"), (3 * 10**9, "3.0G")]
)
def test_a_large_number_is_shortened(number: int, text: str) -> None:
    assert format_count(number) == text


def test_small_costs_keep_four_decimals() -> None:
    assert format_cost(0.0123) == "about $0.0123"
    assert format_cost(1_234.5) == "about $1,234.50"


def test_sizes_are_in_megabytes_or_gigabytes() -> None:
    assert (format_bytes(117_000_000), format_bytes(2_500_000_000)) == ("117 MB", "2.5 GB")


def test_a_sparkline_shows_every_number_above_zero() -> None:
    assert sparkline([0, 1, 500, 1_000]) == "▁▂▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


@pytest.mark.parametrize(("percentage", "bar"), [(0, "──────────   0%"), (100, "━━━━━━━━━━ 100%")])
def test_a_progress_bar_ends_with_its_percentage(percentage: int, bar: str) -> None:
    assert progress_bar(percentage, Status.RUNNING, 10).plain == bar
