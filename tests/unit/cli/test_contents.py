"""Contexts and results as people see them: without secrets, and bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentexec.cli.contents import value_lines
from agentexec.values.presentation import Bounds, Presenter, read_json

KEY = "sk-" + "a1" * 20


def shown(value: Any, bounds: Bounds | None = None) -> Any:
    return Presenter({"open sesame"}, bounds).present(value)


@pytest.mark.parametrize("bounds", [None, Bounds()], ids=["full", "bounded"])
def test_secrets_are_hidden_by_name_by_form_and_by_knowledge(bounds: Bounds | None) -> None:
    value = {
        "company": "Acme",
        "apiKey": "one",
        "db": {"password": "two words", "port": 5432, "pin": 1234},
        "credentials": ["three", {"user": "four"}],
        "headers": [["X-Api-Key", "five"], {"name": "Authorization", "value": "six"}],
        "note": f"use {KEY}, or say open sesame",
        "arguments": '{"token": "seven", "city": "Zürich"}',
        "usage": {"input_tokens": 12, "max_tokens": 4000},
        "login": {"pass": "eight", "pw": "nine", "api_key_2": "ten", "key": "a name"},
        "tests": {"pass": 12, "fail": 0},
        "has_password": True,
        "password": None,
        KEY: "a key as a name",
    }
    assert shown(value, bounds) == {
        "company": "Acme",
        "apiKey": "***",
        "db": {"password": "***", "port": 5432, "pin": "***"},
        "credentials": ["***", {"user": "***"}],
        "headers": [["X-Api-Key", "***"], {"name": "Authorization", "value": "***"}],
        "note": "use sk-***, or say ***",
        "arguments": '{"token": "***", "city": "Zürich"}',
        "usage": {"input_tokens": 12, "max_tokens": 4000},
        "login": {"pass": "***", "pw": "***", "api_key_2": "***", "key": "a name"},
        "tests": {"pass": 12, "fail": 0},
        "has_password": True,
        "password": None,
        "sk-***": "a key as a name",
    }


def test_two_names_that_look_alike_without_their_secrets_both_stay() -> None:
    assert list(shown({KEY: 1, KEY + "b": 2}).values()) == [1, 2]


def test_a_long_text_says_how_many_characters_are_missing() -> None:
    assert shown("a" * 1_000, Bounds()) == "a" * 1_000
    assert shown("a" * 9_000, Bounds()) == "a" * 1_000 + "… 8000 more characters; --full"
    assert shown("a" * 9_000) == "a" * 9_000


@pytest.mark.parametrize("before", range(3_440, 3_520, 11))
def test_a_secret_that_is_cut_in_half_is_not_shown(before: int) -> None:
    text = Presenter(set(), Bounds()).text("a " * (before // 2) + KEY + " " + "b" * 5_000, 1_000)
    assert "sk-a" not in text
    # Redaction makes a text shorter, so that what was cut in half comes nearer to its beginning.
    keys = " ".join([KEY] * 200)
    assert "sk-a" not in Presenter(set(), Bounds()).text(f"{'.' * (before % 50)}{keys}", 1_000)


@pytest.mark.parametrize(
    "value",
    [
        {"a": "x" * 10**6},
        ["x" * 900] * 10_000,
        {str(number): "x" * 100 for number in range(10_000)},
        [[["x" * 30] * 49] * 49] * 49,
        {"k" * 10**6: 1},
        [10**300] * 10_000,
    ],
    ids=["text", "texts", "fields", "nested", "name", "numbers"],
)
def test_any_value_is_bounded_and_says_that_something_is_missing(value: Any) -> None:
    text = json.dumps(shown(value, Bounds()), ensure_ascii=False)
    assert len(text) < 20_000
    assert "--full" in text


def test_a_value_of_any_depth_is_shown() -> None:
    deep: Any = {"password": "x"}
    for _ in range(400):
        deep = [deep]
    for bounds in (None, Bounds()):
        text = json.dumps(shown(deep, bounds))
        assert text.startswith("[[[") and '"x' not in text


def test_what_is_not_json_is_shown_as_text() -> None:
    assert read_json("{broken") == "{broken"
    assert read_json("[" * 100_000) == "[" * 100_000
    assert read_json('{"a": 1}') == {"a": 1}


def test_a_short_value_takes_one_line_and_a_text_keeps_its_lines() -> None:
    assert list(value_lines("context", {"a": 1})) == ['context:   {"a": 1}']
    assert list(value_lines("result", "")) == ['result:    ""']
    assert list(value_lines("result", "one\ntwo\x1b[2J")) == ["result:", "  one", r"  two\x1b[2J"]
    assert list(value_lines("context", {"a": "b" * 90}))[:2] == ["context:", "  {"]
