"""Arguments that a person gives a call, against the schema of its tool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentexec.arguments.tool_arguments import check_arguments, dump_arguments, same_arguments
from agentexec.errors import PayloadTooLargeError, UsageError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["to", "amount"],
    "properties": {
        "to": {"type": "string", "minLength": 1},
        "amount": {"type": "number", "minimum": 0, "exclusiveMaximum": 1000},
        "count": {"type": "integer"},
        "currency": {"enum": ["EUR", "USD"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "address": {"$ref": "#/$defs/Address"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
    "$defs": {
        "Address": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}
    },
}


def check(**changes: Any) -> None:
    check_arguments(json.dumps({"to": "Ann", "amount": 5, **changes}), json.dumps(SCHEMA))


def test_arguments_that_fit_pass() -> None:
    check(count=10**400, currency="EUR", note=None, address={"city": "Bonn", "zip": 1}, tags=["a"])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"to": 5}, "arguments.to is 5 and must be of type string"),
        ({"to": ""}, "the length of arguments.to must be 1 or more"),
        ({"amount": -1}, "arguments.amount must be 0 or more"),
        ({"amount": 1000}, "arguments.amount must be less than 1000"),
        ({"amount": True}, "must be of type number"),
        ({"count": 1.5}, "must be of type integer"),
        ({"currency": "GBP"}, "must be one of"),
        ({"note": 5}, "none of the forms"),
        ({"address": {}}, "arguments.address lacks 'city'"),
        ({"tags": [1]}, r"arguments.tags\[0\]"),
        ({"tags": ["a", "b", "c"]}, "2 or less"),
        ({"tto": "x"}, "which the tool does not know"),
    ],
)
def test_the_refusal_names_the_place(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        check(**changes)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UsageError, match="lacks 'amount'"):
        check_arguments('{"to": "Ann"}', json.dumps(SCHEMA))


@pytest.mark.parametrize(
    "schema",
    [
        None,
        "{}",
        "nonsense",
        "[]",
        '{"type": "object", "properties": {"to": {"$ref": "#/properties/to"}}}',
        '{"allOf": [{"$ref": "#"}]}',
        '{"type": 7, "enum": 5, "required": "x", "properties": []}',
    ],
)
def test_odd_schemas_refuse_nothing_and_end(schema: str | None) -> None:
    check_arguments('{"to": "Ann"}', schema)


def test_only_bounded_json_objects_are_arguments() -> None:
    assert dump_arguments("arguments=", {"to": "Ann"}, 1000) == '{"to":"Ann"}'
    with pytest.raises(PayloadTooLargeError):
        dump_arguments("arguments=", {"to": "A" * 2000}, 1000)
    for odd in ([1], "x", {"a": float("nan")}, {"a": object()}, {1: "a"}, {"a": "\x00"}, {"a": "\ud800"}):
        with pytest.raises(UsageError):
            dump_arguments("arguments=", odd, 1000)


def test_same_arguments_need_not_have_the_same_text() -> None:
    assert same_arguments('{"a": 1, "b": 2.0}', '{"b":2,"a":1}')
    assert not same_arguments('{"a": 1}', '{"a": true}')
    assert not same_arguments("{", "{")
