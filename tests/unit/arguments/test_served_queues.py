"""Queues of a worker as a text, and in code."""

from __future__ import annotations

from typing import Any

import pytest

import agentexec as ax
from agentexec.arguments.served_queues import describe_queues, format_queues, parse_queues
from agentexec.config import Settings


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("high", [("high", None)]),
        ("high,default", [("high", None), ("default", None)]),
        (" high , default ", [("high", None), ("default", None)]),
        ("high:3,default:1", [("high", 3), ("default", 1)]),
        ("tenant:eu,tenant:us", [("tenant:eu", None), ("tenant:us", None)]),
        ("tenant:eu:2,tenant:us:1", [("tenant:eu", 2), ("tenant:us", 1)]),
        ("tenant:eu", [("tenant:eu", None)]),
        ('"my queue"', [("my queue", None)]),
        ('"shard:7":2, "a,b":1', [("shard:7", 2), ("a,b", 1)]),
        ('"say ""hi""",b', [('say "hi"', None), ("b", None)]),
        ('"plain"', [("plain", None)]),
    ],
)
def test_a_text_names_queues_in_order_or_by_weight(text: str, served: list[Any]) -> None:
    assert [*parse_queues(text)] == served
    assert parse_queues(format_queues(text)) == parse_queues(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("high,", "must not be empty"),
        ("", "must not be empty"),
        ("high,,low", "must not be empty"),
        ('""', "must not be empty"),
        ("my queue", 'must not have blanks or control characters: .*in double quotes: "my queue"'),
        ("a,b\tc", "must not have blanks or control characters"),
        ("shard:7", 'one queue with a weight.* write shard. .*: "shard:7"'),
        ('"a', "the quotes in .* are not in pairs"),
        ('"a"b', "the quotes in .* are not in pairs"),
        ('a"b"', "the quotes in .* are not in pairs"),
        ("a:1:2,b:1", "must not end with a colon and a number"),
        ("high:" + "9" * 5000 + ",low:1", "weight of high must be 1000 or less"),
        ("high,high", "names high twice"),
        ("high:3,default", "gives default no weight"),
        ("high:0,default:1", "weight of high must be 1 or more"),
        ("high:1001,default:1", "weight of high must be 1000 or less"),
        ("x" * 101, "at most 100 characters"),
        (",".join(map(str, range(51))), "at most 50 queues"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ax.UsageError, match=complaint):
        parse_queues(text)


@pytest.mark.parametrize(
    ("queues", "text"),
    [
        (["high", "default"], "high,default"),
        (("high",), "high"),
        ({"high": 3, "default": 1}, "high:3,default:1"),
        ({"high": 3}, "high"),
    ],
)
def test_queues_can_be_given_in_code(queues: Any, text: str) -> None:
    assert format_queues(queues) == text
    assert ax.Pool(database_url="sqlite:///x.db", queues=queues).registry.queues == text


@pytest.mark.parametrize(
    "queues",
    [
        [],
        3,
        [3],
        ["a,b"],
        ["a:1", "b:2"],
        ["my queue"],
        ['"quoted"'],
        {"a b": 3},
        {"a": "3", "b": 1},
        {"a": 1.5, "b": 1},
        {"a": True, "b": 1},
    ],
)
def test_what_is_not_a_list_of_queues_is_refused(queues: Any) -> None:
    with pytest.raises(ax.UsageError):
        format_queues(queues)


def test_a_worker_serves_its_one_queue_unless_others_are_set() -> None:
    assert Settings(queue_name="a").served_queues == (("a", None),)
    assert Settings(queue_name="a", queues="b, c").served_queues == (("b", None), ("c", None))
    with pytest.raises(ax.SettingsError, match="AGENTEXEC_QUEUES cannot be used: queues names b twice"):
        Settings().queues = "b,b"


def test_queues_are_told_in_words() -> None:
    assert describe_queues(parse_queues("a")) == "queue a"
    assert describe_queues(parse_queues("a,b")) == "queues a, b (in this order)"
    assert describe_queues(parse_queues("a:2,b:1")) == "queues a:2, b:1 (by weight)"
