"""Checks of arguments: each returns the value as agentexec uses it, or raises a UsageError that names the argument.

What one database refuses, another must not take, so every rule here holds for all of them.
"""

from __future__ import annotations

import functools
import json
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agentexec.errors import PayloadTooLargeError, UsageError

MAX_SECONDS = 3_000_000_000.0
"""Longest time in seconds, about 95 years: threads and databases cannot wait longer."""

FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Years of moments that every database stores, and that stay within the calendar in every time zone."""

MAX_INTEGER = 2**31 - 1
"""Highest page number, limit or amount: the highest that every database takes for an integer."""

MAX_DEPTH = 30
"""Levels of nested lists and objects in a JSON column: MariaDB refuses 32."""


def check_text(name: str, value: Any, limit: int, *, may_be_empty: bool = False) -> str:
    """Return a text that every database stores and compares alike: `limit` characters at most, and no space at its end.

    MariaDB compares texts without the spaces at their ends.
    """
    text = check_storable(name, value)
    if len(text) > limit:
        raise UsageError(f"{name} has at most {limit} characters; this text has {len(text)}.")
    if not text and not may_be_empty:
        raise UsageError(f"{name} must not be empty.")
    if text.endswith(" "):
        raise UsageError(f"{name} must not end with a space: {shown(text)}.")
    return text


def check_storable(name: str, value: Any) -> str:
    """Return a text of any length that every database stores: without NUL and without half of a surrogate pair."""
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text, not {_kind(value)}.")
    text = str.__str__(value)
    if "\x00" in text:
        raise UsageError(f"{name} holds a NUL character, which PostgreSQL cannot store; remove it.")
    if not is_encodable(text):
        raise UsageError(f"{name} holds half of a surrogate pair, which no database can store.")
    return text


def is_encodable(text: str) -> bool:
    """Return False for a text with half of a surrogate pair, which UTF-8 cannot express."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_whole_pairs(text: str) -> bool:
    """Return False for JSON text with an escaped half of a surrogate pair, which no reader of the text accepts."""
    if "\\ud" not in text:
        return True
    return is_encodable(json.dumps(json.loads(text), ensure_ascii=False))


def check_number(name: str, value: Any, *, minimum: float = -1e300, maximum: float = 1e300) -> float:
    """Return a number between two limits as a float. NaN, infinity and truth values are refused."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise UsageError(f"{name} must be a number, not {_kind(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not minimum <= number <= maximum:
        low, high, got = map(_written, (minimum, maximum, number))
        raise UsageError(f"{name} must be a number from {low} to {high}, not {got}.")
    return number


def check_integer(name: str, value: Any, *, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
    """Return a whole number between two limits. Truth values are refused."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise UsageError(f"{name} must be a whole number, not {_kind(value)}.")
    number = operator.index(value)
    if not minimum <= number <= maximum:
        limits = f"{minimum} or more" if number < minimum else f"{maximum} or less"
        # A huge number cannot even be written out.
        got = f", not {number}" if abs(number) < 10**20 else ""
        raise UsageError(f"{name} must be {limits}{got}.")
    return number


def check_seconds(name: str, value: Any, *, minimum: float = -MAX_SECONDS) -> float:
    """Return a time, given in seconds or as a timedelta, in seconds. By default it may be negative, for one that has passed."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return check_number(name, seconds, minimum=minimum, maximum=MAX_SECONDS)


def check_timeout(name: str, value: Any) -> float | None:
    """Return the longest time to wait in seconds, 0 for one that has passed already; None for no limit."""
    return None if value is None else max(0.0, check_seconds(name, value))


def check_moment(name: str, value: Any) -> datetime:
    """Return a moment in UTC. It must be aware of its time zone, and not at an end of the calendar."""
    if not isinstance(value, datetime):
        raise UsageError(f"{name} must be a datetime, not {_kind(value)}.")
    if value.utcoffset() is None:
        raise UsageError(f"{name} must have a time zone, like datetime.now(UTC) + timedelta(hours=1).")
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise UsageError(
            f"{name} must lie in the years {FIRST_YEAR} to {LAST_YEAR}, not in the year {value.year}."
        )
    return value.astimezone(UTC)


def check_mapping(name: str, value: Any, *, maximum: int | None = None) -> Mapping[str, Any]:
    """Return a mapping whose keys are texts, and of which there are at most `maximum`."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} must be a mapping, not {_kind(value)}.")
    if maximum is not None and len(value) > maximum:
        raise UsageError(f"{name} has at most {maximum} keys; this mapping has {len(value)}.")
    for key in value:
        if not isinstance(key, str):
            raise UsageError(f"{name} must have texts as keys, not {_kind(key)}: {shown(key)}.")
    return value


def check_iterable(name: str, value: Any) -> None:
    """Raise UsageError for a value that cannot be iterated over."""
    if not isinstance(value, Iterable):
        raise UsageError(f"{name} must be a list or another iterable, not {_kind(value)}.")


def check_keys(name: str, value: Any) -> None:
    """Raise UsageError for a key that is not a text, at any depth: JSON would turn it into one.

    The depth must have been checked.
    """
    if isinstance(value, Mapping):
        for part in check_mapping(name, value).values():
            check_keys(name, part)
    elif isinstance(value, list | tuple):
        for part in value:
            check_keys(name, part)


def check_texts(name: str, value: Any) -> None:
    """Raise UsageError for a text in JSON data that a database cannot store. The depth must have been checked."""
    if isinstance(value, str):
        check_storable(name, value)
    elif isinstance(value, dict):
        for key, part in value.items():
            check_storable(name, key)
            check_texts(name, part)
    elif isinstance(value, list):
        for part in value:
            check_texts(name, part)


def check_flag(name: str, value: Any) -> bool:
    """Return a truth value. Others are refused: the text "false" counts as true."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {_kind(value)}.")
    return value


def check_depth(name: str, text: str) -> None:
    """Raise UsageError for JSON text that is nested too deeply for a JSON column."""
    depth, quoted, escaped = 0, False, False
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    for character in text:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = character == "\\", character != '"'
        elif character in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise UsageError(f"{name} is nested more than {MAX_DEPTH} levels deep.")
        elif character in "}]":
            depth -= 1
        else:
            quoted = character == '"'


def check_size(name: str, text: str, limit: int) -> None:
    """Raise PayloadTooLargeError for JSON text of more than `limit` bytes, which is AGENTEXEC_MAX_PAYLOAD_BYTES."""
    # A character takes at most four bytes, so most texts need not be encoded to be measured.
    if len(text) * 4 > limit and (size := len(text.encode("utf-8", "replace"))) > limit:
        raise PayloadTooLargeError(
            f"{name} is {size} bytes of JSON, above AGENTEXEC_MAX_PAYLOAD_BYTES={limit}; store it elsewhere and pass "
            "a reference, or raise the limit."
        )


def dump_json(name: str, value: Any, default: Any = None) -> str:
    """Return a value as strict JSON text, or raise a UsageError that says why it has none."""
    try:
        return _encoder(default).encode(value)
    except RecursionError:
        raise UsageError(f"{name} is nested too deeply, or contains itself.") from None
    except Exception as error:  # whatever the objects of users raise
        raise UsageError(f"{name} cannot be written as JSON: {first_line(error)}.") from None


@functools.cache
def _encoder(default: Callable[[Any], Any] | None) -> json.JSONEncoder:
    return json.JSONEncoder(default=default, allow_nan=False)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def shown(value: Any) -> str:
    """Return the beginning of a value in ASCII, for a message."""
    try:
        text = ascii(value)
    except Exception:
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:59]}..."


def _written(number: float) -> str:
    """Return a number with all of its digits, if it has few."""
    return f"{number:.15g}" if abs(number) < 1e15 else f"{number:g}"


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
