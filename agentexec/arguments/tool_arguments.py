"""Arguments that a person gives a call instead of the model's: JSON only, checked against the tool's schema where it is known."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentexec.arguments.argument_patterns import canonical, read_arguments
from agentexec.arguments.checks import (
    check_depth,
    check_keys,
    check_mapping,
    check_size,
    check_texts,
    dump_json,
    shown,
)
from agentexec.errors import UsageError

MAX_STEPS = 10_000
"""Comparisons of a schema with a value before the rest is left to the tool itself."""

MAX_LEVELS = 50
"""Levels of references within a schema, likewise."""

_KINDS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": lambda value: _is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def dump_arguments(name: str, arguments: Any, limit: int) -> str:
    """Return the arguments of a call as JSON text. Raises UsageError, or PayloadTooLargeError above `limit` bytes."""
    text = dump_json(name, dict(check_mapping(name, arguments)))
    check_size(name, text, limit)
    check_depth(name, text)
    check_keys(name, arguments)
    check_texts(name, json.loads(text))
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def check_arguments(text: str, schema: str | None) -> None:
    """Check the arguments of a call against the JSON Schema of its tool.

    Types, required and further properties, `enum`, `const` and bounds of numbers and lengths are checked; what a schema
    says beyond that is left to the tool, which checks its arguments itself.

    Raises:
        UsageError: They do not fit; the message names the place.
    """
    try:
        root = json.loads(schema or "{}")
        found = json.loads(text)
    except (ValueError, RecursionError):
        return  # of a row that somebody else has written
    if not isinstance(root, dict):
        return
    problem = next(_Check(root).problems(root, found, "arguments", 0), None)
    if problem is not None:
        raise UsageError(f"The tool does not take these arguments: {problem}.")


def same_arguments(first: str, second: str) -> bool:
    """Return True if two texts hold the same arguments."""
    left, right = read_arguments(first), read_arguments(second)
    return left is not None and right is not None and canonical(left) == canonical(right)


class _Check:
    """Comparison of a value with a schema, with a bound on its steps."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._steps = 0

    def problems(self, schema: Any, value: Any, place: str, level: int) -> Iterator[str]:
        """Yield what is wrong with a value, as phrases."""
        self._steps += 1
        if not isinstance(schema, dict) or self._steps > MAX_STEPS or level > MAX_LEVELS:
            return
        yield from self._of_parts(schema, value, place, level)
        yield from _of_type(schema, value, place)
        yield from _of_choices(schema, value, place)
        yield from _of_bounds(schema, value, place)
        if isinstance(value, dict):
            yield from self._of_object(schema, value, place, level)
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from self.problems(schema.get("items"), item, f"{place}[{number}]", level + 1)

    def _of_parts(self, schema: dict[str, Any], value: Any, place: str, level: int) -> Iterator[str]:
        if isinstance(reference := schema.get("$ref"), str):
            yield from self.problems(self._find(reference), value, place, level + 1)
        for part in _schemas(schema.get("allOf")):
            yield from self.problems(part, value, place, level + 1)
        for name in ("anyOf", "oneOf"):
            choices = _schemas(schema.get(name))
            if choices and not any(self._fits(choice, value, place, level + 1) for choice in choices):
                yield f"{place} is {shown(value)}, which is none of the forms that it may have"

    def _fits(self, schema: Any, value: Any, place: str, level: int) -> bool:
        return next(self.problems(schema, value, place, level), None) is None

    def _of_object(
        self, schema: dict[str, Any], value: dict[str, Any], place: str, level: int
    ) -> Iterator[str]:
        known = schema.get("properties")
        known = known if isinstance(known, dict) else {}
        required = schema.get("required")
        for name in required if isinstance(required, list) else ():
            if isinstance(name, str) and name not in value:
                yield f"{place} lacks {shown(name)}"
        more = schema.get("additionalProperties", True)
        patterns = schema.get("patternProperties")
        for name, part in value.items():
            if name in known:
                yield from self.problems(known[name], part, f"{place}.{name}", level + 1)
            elif more is False and not patterns:
                yield f"{place} has {shown(name)}, which the tool does not know"
            else:
                yield from self.problems(more, part, f"{place}.{name}", level + 1)

    def _find(self, reference: str) -> Any:
        """Return the schema within the root that a reference like #/$defs/Address names."""
        found: Any = self._root
        for part in reference.removeprefix("#/").split("/") if reference.startswith("#/") else [""]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found


def _schemas(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _of_type(schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    checks = [_KINDS[name] for name in names if isinstance(name, str) and name in _KINDS]
    if checks and not any(check(value) for check in checks):
        yield f"{place} is {shown(value)} and must be of type {' or '.join(map(str, names))}"


def _of_choices(schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    allowed = schema.get("enum")
    if isinstance(allowed, list) and canonical(value) not in map(canonical, allowed):
        yield f"{place} is {shown(value)} and must be one of {shown(allowed)}"
    if "const" in schema and canonical(value) != canonical(schema["const"]):
        yield f"{place} is {shown(value)} and must be {shown(schema['const'])}"


def _of_bounds(schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    measure = _measure(value)
    if measure is None:
        return
    what, number, low, high = measure
    bounds = (
        (low, operator.lt, "{bound} or more"),
        (high, operator.gt, "{bound} or less"),
        ("exclusiveMinimum", operator.le, "more than {bound}"),
        ("exclusiveMaximum", operator.ge, "less than {bound}"),
    )
    for name, violates, phrase in bounds:
        bound = schema.get(name)
        applies = low == "minimum" or name in (low, high)
        if isinstance(bound, int | float) and applies and violates(number, bound):
            yield f"{what.format(place=place)} must be {phrase.format(bound=bound)}"


def _measure(value: Any) -> tuple[str, Any, str, str] | None:
    """Return what the bounds of a schema are about, its number, and the names of the bounds."""
    if _is_number(value):
        return "{place}", value, "minimum", "maximum"
    if isinstance(value, str):
        return "the length of {place}", len(value), "minLength", "maxLength"
    if isinstance(value, list):
        return "the number of items of {place}", len(value), "minItems", "maxItems"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
