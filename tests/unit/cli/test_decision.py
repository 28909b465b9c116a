"""Options of the commands that decide calls."""

from __future__ import annotations

import pytest

from agentexec.cli.decision import read_object
from agentexec.errors import UsageError


def test_an_object_is_read() -> None:
    assert read_object("--arguments", '{"to": "Ann", "amount": 5}') == {"to": "Ann", "amount": 5}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"amount": 5, "amount": 500}', "twice"),
        ('{"a": {"b": 1, "b": 2}}', "twice"),
        ('{"amount": NaN}', "plain JSON"),
        ("[1]", "takes a JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_an_object_that_can_be_read_in_two_ways_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read_object("--arguments", text)
