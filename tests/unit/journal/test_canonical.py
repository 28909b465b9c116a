"""Canonical text: what a value is known by does not depend on the process."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field, RootModel

import agentexec as ax
from agentexec.journal.canonical import canonical_json, digest, sort_sets_in_text


class Model(BaseModel):
    tags: set[str] = Field(alias="Tags")


@dataclass
class Point:
    at: frozenset[int]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2.5, None, True, "ü", {"b": 1, "a": (2,)}], '[1,2.5,null,true,"\\u00fc",{"a":[2],"b":1}]'),
        (b"\xff", '"_w=="'),
        (object(), '"<object>"'),
        ({1: 2, 3: 4}, '{"1":2,"3":4}'),
        (Model(Tags=set()), '{"Tags":[]}'),
        (float("nan"), "NaN"),
        (RootModel[list[int]]([2, 1]), "[2,1]"),
    ],
)
def test_a_value_without_sets_keeps_the_text_of_earlier_releases(value: Any, text: str) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize(
    "value",
    [
        {(1, 2): 3},
        {frozenset({1}): 2},
        {1: 2, "a": 3},
        [10**5000],
        "\ud800",
        {"\ud800": 1},
        [Model(Tags={"\ud800"})],
        {1, "a", None, (1, 2)},
        deque([{1}]),
    ],
)
def test_a_value_that_json_cannot_hold_has_a_hash_too(value: Any) -> None:
    assert digest(value) == digest(value) != digest([value])


def test_an_iterator_is_not_used_up_by_its_hash() -> None:
    numbers = (number for number in range(3))
    assert canonical_json([numbers]) == '["<generator>"]'
    assert list(numbers) == [0, 1, 2]


def test_a_value_that_contains_itself_is_refused_in_one_sentence() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(ax.UsageError, match="contains itself or is nested too deeply"):
            digest(value)


def test_a_context_without_sets_keeps_its_text() -> None:
    model = Model(Tags={"b"})
    assert sort_sets_in_text(model, '{"Tags": ["b"], "x": 1e2}') == '{"Tags": ["b"], "x": 1e2}'
    assert sort_sets_in_text(Point(frozenset({1})), '{"at":[1]}') == '{"at":[1]}'


def test_a_form_of_the_users_own_serializer_is_left_alone() -> None:
    assert sort_sets_in_text(Model(Tags={"b", "a"}), '{"Tags":["b","a","c"]}') == '{"Tags":["b","a","c"]}'
    assert sort_sets_in_text(Model(Tags={"b", "a"}), '{"Tags":"b a","x":[]}') == '{"Tags":"b a","x":[]}'
