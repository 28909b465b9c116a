"""Canonical text of values: the same in every process, so that hashes of it are too.

A set has another order in each process, because Python hashes texts with a random seed. Its elements are therefore
sorted by their own canonical text. A value without sets keeps the JSON form that earlier releases gave it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from agentexec.errors import UsageError

_SEQUENCES = (list, tuple, deque)
_SETS = (set, frozenset)
_CONTAINERS = frozenset((list, dict))

_MAX_DECIMAL_BITS = 14_000
"""Bits of an integer above which Python may refuse to write it in decimal digits."""


def digest(value: Any) -> str:
    """Return a hash of a value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Return a value's JSON form, the same in every process; an object without one is replaced by its type's name.

    Raises UsageError for a value that contains itself.
    """
    try:
        return _dump(value)
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError):
        # Keys that JSON lacks or cannot sort, half a surrogate pair, an integer of thousands of digits.
        return _dump(_describe(value, frozenset()))


def sort_sets(value: Any, plain: Any) -> Any:
    """Return the JSON data `plain` of a value with the elements of its sets in canonical order.

    Both are walked side by side. Where a serializer of the user's gave `plain` another shape, it is taken as it is.
    """
    if not isinstance(plain, list | dict):
        return plain
    value = _without_root(value)
    if isinstance(plain, list):
        return _sort_list(value, plain)
    if isinstance(value, Mapping):
        if len(value) != len(plain):
            return plain
        parts: Iterable[tuple[str, Any]] = zip(plain, value.values(), strict=True)
    else:
        parts = _fields(value)
    sorted_parts = {name: sort_sets(part, plain[name]) for name, part in parts if name in plain}
    return {**plain, **sorted_parts}


def _sort_list(value: Any, plain: list[Any]) -> list[Any]:
    is_set = isinstance(value, _SETS)
    if not (is_set or isinstance(value, _SEQUENCES)) or len(value) != len(plain):
        return plain
    # A long list of plain values is looked at once, as fast as Python can.
    if not is_set and _CONTAINERS.isdisjoint(map(type, plain)):
        return plain
    items = [sort_sets(item, plain_item) for item, plain_item in zip(value, plain, strict=True)]
    return sorted(items, key=_dump) if is_set else items


def sort_sets_in_text(value: Any, text: str) -> str:
    """Return a value's JSON text with the elements of its sets in canonical order; unchanged if it holds no sets."""
    if "[" not in text:
        return text
    plain = json.loads(text)
    ordered = sort_sets(value, plain)
    return text if ordered == plain else json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Return a value that is not JSON as JSON data. An iterator is not read, because the reader would take its items."""
    if isinstance(value, Iterator):
        return _type_name(value)
    plain = to_jsonable_python(value, by_alias=True, bytes_mode="base64", fallback=_type_name)
    return sort_sets(value, plain)


def _without_root(value: Any) -> Any:
    """Return the value that a root model stands for; every other value as it is."""
    while getattr(type(value), "__pydantic_root_model__", False):
        value = value.root
    return value


def _type_name(value: Any) -> str:
    return f"<{type(value).__qualname__}>"


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a model or data class, each by its name in JSON."""
    if not isinstance(value, BaseModel) and not dataclasses.is_dataclass(value):
        return
    declared = getattr(type(value), "__pydantic_fields__", {})
    computed = getattr(type(value), "__pydantic_computed_fields__", {})
    names = [*declared, *computed] if declared or computed else [f.name for f in dataclasses.fields(value)]
    for name in [*names, *(getattr(value, "__pydantic_extra__", None) or {})]:
        info = declared.get(name) or computed.get(name)
        alias = getattr(info, "serialization_alias", None) or getattr(info, "alias", None)
        part = getattr(value, name, None)
        yield alias or name, part
        if alias:
            yield name, part


def _describe(value: Any, within: frozenset[int]) -> Any:
    """Return a stand-in for a value that JSON cannot hold, made of what distinguishes it from other values."""
    if id(value) in within or len(within) > 200:
        raise _too_deep()
    within = within | {id(value)}
    value = _without_root(value)
    if isinstance(value, Mapping):
        return {_key(key, within): _describe(item, within) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((_describe(item, within) for item in value), key=_dump)
    if isinstance(value, _SEQUENCES):
        return [_describe(item, within) for item in value]
    if fields := dict(_fields(value)):
        return {name: _describe(item, within) for name, item in fields.items()}
    return _describe_scalar(value)


def _describe_scalar(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_DECIMAL_BITS:
        return hex(value)
    try:
        return json.loads(_dump(value))
    except (TypeError, ValueError):
        return _type_name(value)


def _key(key: Any, within: frozenset[int]) -> str:
    return key if isinstance(key, str) else _dump(_describe(key, within))


def _too_deep() -> UsageError:
    return UsageError(
        "A value that identifies a step, a run or a child contains itself or is nested too deeply; pass plain data."
    )
