"""Plain text for the terminal."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from agentexec.activity.queries.pauses import PauseSchema
from agentexec.cli.output import (
    cell_width,
    echo_json,
    fit,
    format_moment,
    format_table,
    format_time,
    one_line,
    printable,
)
from agentexec.values.presentation import shorten

HOSTILE = "\x1b[2J\x07\x7f\x9b2J\u061c\u200e\u202e\u2066\u2069\ufeff\ud800\U000e0041"
"""Characters that a terminal obeys, that reorder or hide text, or that cannot be printed."""


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert one_line("\x1b[2Jgone\n\tsecond\u202e\x9b") == r"\x1b[2Jgone  second\u202e\x9b"
    assert one_line(HOSTILE).isprintable() and one_line(HOSTILE).isascii()
    assert one_line(None) == ""


def test_letters_and_emoji_of_all_languages_stay_as_they_are() -> None:
    for text in (
        "Zürich 東京 \u0642\u0647\u0648\u0629",
        "\u0646\u0627\u0645\u0647\u200c\u0647\u0627",
        "👨\u200d👩\u200d👧",
        "co\u00adoperate",
    ):
        assert one_line(text) == text


def test_json_for_a_terminal_means_the_same_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"a": HOSTILE, "b": "Zürich 東京 👩"}
    echo_json(json.dumps(value, ensure_ascii=False))
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").isprintable() and "Zürich 東京 👩" in printed
    assert json.loads(printed) == value


def test_a_text_that_is_cut_says_how_much_is_missing() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdef", 2) == "ab… 4 more characters; --full"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert format_table(("A", "LONG", "LAST"), [("first", "x", "y"), ("a", "b", "")]) == [
        "A      LONG  LAST",
        "first  x     y",
        "a      b",
    ]


def test_wide_characters_count_as_two_columns() -> None:
    assert format_table(("A", "B"), [("東京", "x"), ("abc", "y")]) == ["A     B", "東京  x", "abc   y"]
    assert (fit("東京都", 5), fit("東京", 4), fit("abc", 0)) == ("東京…", "東京", "")
    assert all(cell_width(fit("a東b京c", width)) <= width for width in range(9))


def test_a_text_keeps_its_lines() -> None:
    assert printable("one\n  two\x1b[2J\r\nthree") == "one\n  two\\x1b[2J\nthree"


def test_a_moment_at_the_end_of_time_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert format_time(datetime.max.replace(tzinfo=UTC)).startswith("9999-12-31")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_pause_has_the_time_that_lists_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        at = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
        sentence = PauseSchema(queue="high", paused_at=at, paused_by="ann").sentence()
        assert sentence == "Queue high is paused since 2026-03-01 08:30:00 JST by ann."
        assert format_time(at) in sentence
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_moment_of_another_day_has_its_date() -> None:
    now = datetime(2026, 2, 28, 12, 30).astimezone()
    assert format_moment(now - timedelta(hours=12), now) == "00:30:00"
    assert format_moment(now + timedelta(hours=12), now) == "2026-03-01 00:30:00"
    assert format_moment(now - timedelta(hours=13), now) == "2026-02-27 23:30:00"
