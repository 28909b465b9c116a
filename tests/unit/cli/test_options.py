"""Values of the options that several commands share."""

from __future__ import annotations

from datetime import timedelta

import pytest

import agentexec as ax
from agentexec.cli.options import parse_duration, parse_labels, parse_statuses


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        (" 30d ", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_a_duration_has_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    assert parse_duration("--since", text) == duration


@pytest.mark.parametrize("text", ["", "5", "d", "-1d", "1 day", "1y", "1h30m", "inf", "nan", "1e5d", "٣d"])
def test_any_other_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ax.UsageError, match="--since takes a time like 30d, 12h, 90m or 45s, not '"):
        parse_duration("--since", text)


@pytest.mark.parametrize("text", ["99999999999d", "34723d", "9" * 5000 + "s"])
def test_a_duration_beyond_a_lifetime_is_refused_with_the_longest(text: str) -> None:
    with pytest.raises(ax.UsageError, match="--older-than takes at most 34722d, not '") as caught:
        parse_duration("--older-than", text)
    assert len(str(caught.value)) < 120


def test_labels_are_split_at_their_first_equals_sign() -> None:
    assert parse_labels(["tenant=t1", "of=a=b", "empty="]) == {"tenant": "t1", "of": "a=b", "empty": ""}
    assert parse_labels([]) is parse_labels(None) is None
    assert parse_labels(["tenant=a", "tenant=a"]) == {"tenant": "a"}
    with pytest.raises(ax.UsageError, match="--metadata gives 'tenant' two values; a task has one"):
        parse_labels(["tenant=a", "tenant=b"])


@pytest.mark.parametrize("pair", ["tenant", "=t1", ""])
def test_a_label_without_a_key_or_a_value_is_refused(pair: str) -> None:
    with pytest.raises(ax.UsageError, match="--metadata takes KEY=VALUE"):
        parse_labels([pair])


def test_a_status_is_named_in_any_case_and_several_count_once_each() -> None:
    assert parse_statuses(["Running", "error", "RUNNING"]) == (ax.Status.RUNNING, ax.Status.ERROR)
    assert parse_statuses(None) is None
    with pytest.raises(ax.UsageError, match="the statuses are queued, running, complete, error, canceled"):
        parse_statuses(["error", "late"])
