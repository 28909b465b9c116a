"""Comparison of a value with what its JSON text gives back, to name what would be lost."""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from datetime import date, datetime, timedelta
from numbers import Number
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

_ATOMS = frozenset({str, int, float, bool, type(None), bytes, datetime, date, timedelta, UUID})
"""Types of which equal values are the same value. Unequal ones need a look: NaN is not equal to itself."""

_PLAIN = frozenset({str, int, bool, type(None)})
"""Types of which JSON has every value."""

_MISSING = object()
_BARE = (dict, list, tuple, set, frozenset, collections.deque)


class Difference(NamedTuple):
    """First place at which a value would not come back, as a path of names, and the reason."""

    path: str
    reason: str

    def within(self, name: Any) -> Difference:
        """Return the difference as seen from the value that holds the part `name`."""
        return Difference(_join(str(name), self.path) if self.path else str(name), self.reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


def is_flat(value: Any) -> bool:
    """Return True for a dictionary of plain JSON values, which comes back as it is; False says nothing."""
    return type(value) is dict and all(
        type(key) is str and (type(part) in _PLAIN or (type(part) is float and math.isfinite(part)))
        for key, part in value.items()
    )


def find_difference(original: Any, restored: Any, hint: Any) -> Difference | None:
    """Return the first difference between a value and what came back as the type `hint`, or None.

    Where the type is open (`Any`, a plain `dict`), values come back as JSON data: a model as an object, a set as a list.
    At the root an instance of a subclass may come back as its base, if the base has all of its fields.
    """
    return _compare(original, restored, hint, True)


def find_secret(value: Any, path: str = "") -> str | None:
    """Return the path to the first pydantic secret that is not empty, or None."""
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return None if value.get_secret_value() in ("", b"") else path
    found = (find_secret(part, _join(path, name)) for name, part in parts_of(value))
    return next((secret for secret in found if secret is not None), None)


def parts_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the fields, items or elements of a value with their names."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield name, value.__dict__.get(name)
        yield from (value.__pydantic_extra__ or {}).items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple | Set | collections.deque):
        yield from enumerate(value)


def _compare(original: Any, restored: Any, hint: Any, is_root: bool = False) -> Difference | None:
    kind = type(original)
    if kind is type(restored):
        if kind in _ATOMS and original == restored:
            return None
        if kind is dict:
            return _compare_mappings(original, restored, hint)
        if kind is list:
            return _compare_collections(original, restored, hint)
    fields = _fields(kind)
    if fields is not None:
        return _compare_fields(original, restored, hint, fields, is_root)
    if isinstance(original, Mapping) and isinstance(restored, Mapping):
        return _compare_mappings(original, restored, hint)
    if _is_collection(original) and _is_collection(restored):
        return _compare_collections(original, restored, hint)
    return _compare_leaves(original, restored, hint)


class _Field(NamedTuple):
    name: str
    hint: Any
    alias: str
    is_excluded: bool


@functools.lru_cache(maxsize=1024)
def _fields(kind: type) -> tuple[_Field, ...] | None:
    """Return the fields of a model or data class; None for other classes."""
    known = getattr(kind, "__pydantic_fields__", {})
    if issubclass(kind, BaseModel):
        return tuple(
            _Field(name, info.annotation, info.serialization_alias or info.alias or name, bool(info.exclude))
            for name, info in known.items()
        )
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(
        _Field(
            field.name,
            known[field.name].annotation if field.name in known else field.type,
            field.name,
            is_excluded=False,
        )
        for field in dataclasses.fields(kind)
    )


def _compare_fields(
    original: Any, restored: Any, hint: Any, fields: tuple[_Field, ...], is_root: bool
) -> Difference | None:
    kind, given = type(original), type(restored)
    read = _reader(kind, restored, hint)
    if read is None:
        return _compare_kinds(original, restored, hint)
    for field in fields:
        found, value = read(restored, field), getattr(original, field.name, _MISSING)
        if _are_same_atom(value, found) or _is_unset(original, field, value):
            continue
        if found is _MISSING:
            return Difference(field.name, f"{kind.__name__} has it, but {_a(given)} comes back, without it")
        difference = _compare(value, found, field.hint)
        if difference is not None:
            return difference.within(field.name)
    if read is _read_attribute and not is_root and kind is not given:
        return Difference("", f"{_a(kind)} comes back as {_a(given)}")
    return _compare_extra(original, restored)


def _reader(kind: type, restored: Any, hint: Any) -> Callable[[Any, _Field], Any] | None:
    """Return the function that finds a field in what came back, None if that has no fields."""
    given = type(restored)
    if given is kind or issubclass(kind, given):  # the question to a model's metaclass takes long
        return _read_attribute
    return _read_item if isinstance(restored, Mapping) and is_open(hint) else None


def _compare_kinds(original: Any, restored: Any, hint: Any) -> Difference | None:
    """Compare a model with something that has no fields, as a serializer of the user's may give."""
    kind, given = type(original), type(restored)
    if not is_open(hint) and not getattr(given, "__pydantic_root_model__", False):
        return Difference("", f"{_a(kind)} comes back as {_a(given)}")
    return None if restored is not None else Difference("", "it comes back empty")


def _are_same_atom(value: Any, found: Any) -> bool:
    kind = type(value)
    return kind is type(found) and kind in _ATOMS and value == found


def _is_unset(original: Any, field: _Field, value: Any) -> bool:
    """Return True for a field without a value, and for an excluded one that nobody has set: it gets its default again."""
    return value is _MISSING or (field.is_excluded and field.name not in original.model_fields_set)


def _read_item(restored: Mapping[str, Any], field: _Field) -> Any:
    return restored.get(field.name, restored.get(field.alias, _MISSING))


def _read_attribute(restored: Any, field: _Field) -> Any:
    return getattr(restored, field.name, _MISSING)


def _compare_extra(original: Any, restored: Any) -> Difference | None:
    if not (extra := getattr(original, "__pydantic_extra__", None)):
        return None
    if not isinstance(restored, Mapping):
        restored = getattr(restored, "__pydantic_extra__", None) or {}
    # What else is in JSON data are the fields.
    return _compare_mappings(extra, {name: restored[name] for name in extra if name in restored}, Any)


def _compare_mappings(
    original: Mapping[Any, Any], restored: Mapping[Any, Any], hint: Any
) -> Difference | None:
    open_hint: bool | None = None
    for key, value in original.items():
        found = restored.get(key, _MISSING)
        value_kind = type(value)
        if value_kind is type(found) and value_kind in _ATOMS and value == found:
            continue
        if found is _MISSING:
            open_hint = is_open(hint) if open_hint is None else open_hint
            found = restored.get(_json_key(key), _MISSING) if open_hint else _MISSING
        if found is _MISSING:
            return Difference(str(key), "it is lost")
        if (difference := _compare(value, found, hint)) is not None:
            return difference.within(key)
    if len(restored) < len(original):
        return Difference("", "two of its keys are the same in JSON")
    return None


def _compare_collections(original: Any, restored: Any, hint: Any) -> Difference | None:
    if len(original) != len(restored):
        return Difference("", f"its {len(original)} elements come back as {len(restored)}")
    if isinstance(restored, Set):
        return None if _equal(original, restored) else Difference("", "its elements come back changed")
    # Long lists of texts and numbers are compared without a loop of ours.
    mine, theirs = list(map(type, original)), list(map(type, restored))
    if mine == theirs and _ATOMS.issuperset(mine) and list(original) == list(restored):
        return None
    for number, (value, found) in enumerate(zip(original, restored, strict=True)):
        if (difference := _compare(value, found, hint)) is not None:
            return difference.within(number)
    return None


def _compare_leaves(original: Any, restored: Any, hint: Any) -> Difference | None:
    kind, given = type(original), type(restored)
    if _are_equal(original, restored):
        return None
    if kind is given and kind.__eq__ is object.__eq__:
        # Two objects are never equal here, so their parts are compared.
        mine, theirs = getattr(original, "__dict__", {}), getattr(restored, "__dict__", {})
        return _compare_mappings(mine, theirs, Any)
    if restored is not None and is_open(hint) and _is_json_form(original, restored):
        return None
    if isinstance(original, float) and not math.isfinite(original):
        return Difference("", "JSON has no NaN and no infinity")
    if kind is given:
        return Difference("", "it comes back with another value")
    return Difference("", f"{_a(kind)} comes back as {_a(given)}")


def _are_equal(original: Any, restored: Any) -> bool:
    if _equal(original, restored):
        return _are_kin(original, restored)
    if isinstance(original, float) and isinstance(restored, float):
        return math.isnan(original) and math.isnan(restored)
    if isinstance(original, datetime) and isinstance(restored, datetime):
        # Two times in different zones are never equal in the hour that the clock shows twice.
        return bool(original.tzinfo and restored.tzinfo) and original.timestamp() == restored.timestamp()
    return False


def _is_json_form(original: Any, restored: Any) -> bool:
    """Return True for the JSON data that an open type gives for a value that is not JSON data itself."""
    if isinstance(original, str | bytes | int | float | SecretStr | SecretBytes | Secret | io.IOBase):
        return False
    if isinstance(restored, list):
        return isinstance(original, Iterable)
    return original is not None


def _are_kin(original: Any, restored: Any) -> bool:
    return (
        isinstance(restored, type(original))
        or isinstance(original, type(restored))
        or (isinstance(original, Number) and isinstance(restored, Number))
    )


def _equal(original: Any, restored: Any) -> bool:
    try:
        return bool(original == restored)
    except Exception:
        return False


def _is_collection(value: Any) -> bool:
    return isinstance(value, list | tuple | Set | collections.deque) or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)
    )


def _json_key(key: Any) -> str:
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}.get(key, "")
    return str(getattr(key, "value", key))


def is_open(hint: Any, depth: int = 0) -> bool:
    """Return True if a type says nothing about some part of its values. Models and data classes speak for themselves."""
    if hint in (Any, object) or isinstance(hint, typing.TypeVar) or depth > 20:
        return True
    if typing.get_origin(hint) is None:
        parts = _named_parts(hint)
        if parts is None:
            return hint in _BARE or getattr(hint, "__module__", "") in ("typing", "collections.abc")
    else:
        parts = _arguments(hint)
    return any(is_open(part, depth + 1) for part in parts)


def _named_parts(hint: Any) -> list[Any] | None:
    """Return the types in a typed dictionary, a named tuple or a named type; None for others."""
    if isinstance(hint, type) and (hasattr(hint, "__total__") or hasattr(hint, "_fields")):
        return list(getattr(hint, "__annotations__", {}).values())
    target = getattr(hint, "__value__", None) or getattr(hint, "__supertype__", None)
    return None if target is None else [target]


def _arguments(hint: Any) -> list[Any]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return []
    return [parts[0]] if origin is typing.Annotated else [part for part in parts if part is not Ellipsis]


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _a(kind: type) -> str:
    name = kind.__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"
