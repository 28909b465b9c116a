"""JSON values for people to read: without secrets, and bounded in length unless all is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from agentexec.redaction import HIDDEN, Redactor, is_secret_name

MARGIN = 2_500
"""Characters that are read beyond those shown, and dropped after the redaction: half a secret is not recognized."""

MAX_DEPTH = 100
"""Levels of a value that are shown as a structure; deeper ones are shown as their JSON text."""

NAMES = ("name", "key", "header", "field")
"""Fields that name what the field `value` beside them holds."""


class Bounds(NamedTuple):
    """Bounds of a value: characters in total and of one text, and entries of one list or object."""

    total: int = 4_000
    text: int = 1_000
    entries: int = 50


class Presenter:
    """Copies values without secrets, and within bounds.

    Args:
        secrets: Secrets that are known besides those of the environment.
        bounds: None shows everything.
        more: Completes "… 20 more characters; ".
    """

    def __init__(self, secrets: Iterable[str], bounds: Bounds | None = None, more: str = "--full") -> None:
        self._redactor = Redactor(secrets)
        self._bounds = bounds
        self._more = more
        self._left = 0

    def present(self, value: Any) -> Any:
        """Return a JSON value as it may be shown."""
        self._left = self._bounds.total if self._bounds else 0
        return self._copy(value, secret=False, depth=0)

    def text(self, text: str, limit: int | None = None) -> str:
        """Return a text as it may be shown, with up to `limit` characters."""
        if limit is None:
            return self._redactor.redact(text)
        read = text[: limit + MARGIN]
        shown = self._redactor.redact(read)
        if len(read) == len(text):
            return shorten(shown, limit, self._more)
        shown = shown[: max(0, min(limit, len(shown) - MARGIN))]
        return f"{shown}… {len(text) - len(shown)} more characters; {self._more}"

    def _copy(self, value: Any, *, secret: bool, depth: int) -> Any:
        if isinstance(value, dict | list) and depth >= MAX_DEPTH:
            value = _dumped(value)
        if isinstance(value, dict):
            return self._copy_object(value, secret, depth)
        if isinstance(value, list):
            return self._copy_list(value, secret, depth)
        if isinstance(value, str):
            return HIDDEN if secret and value else self._copy_text(value)
        self._left -= 8
        return HIDDEN if secret and type(value) in (int, float) else value

    def _copy_text(self, text: str) -> str:
        if self._bounds is None:
            return self._redactor.redact(text)
        limit = max(0, min(self._bounds.text, self._left))
        self._left -= min(len(text), limit) + 4
        return self.text(text, limit)

    def _copy_object(self, value: Mapping[str, Any], secret: bool, depth: int) -> dict[str, Any]:
        copy: dict[str, Any] = {}
        named = any(isinstance(value.get(name), str) and is_secret_name(value[name]) for name in NAMES)
        for name, part in value.items():
            if self._full(len(copy)):
                copy["…"] = f"{len(value) - len(copy)} more fields; {self._more}"
                break
            hides = secret or _hides(name, part) or (named and name == "value")
            shown = self._copy_text(name)
            while shown in copy:  # after the redaction
                shown += "'"
            copy[shown] = self._copy(part, secret=hides, depth=depth + 1)
        return copy

    def _copy_list(self, value: list[Any], secret: bool, depth: int) -> list[Any]:
        copy: list[Any] = []
        # A header or a parameter as a pair: ["Authorization", "…"].
        pair = len(value) == 2 and isinstance(value[0], str) and is_secret_name(value[0])
        for part in value:
            if self._full(len(copy)):
                copy.append(f"… {len(value) - len(copy)} more items; {self._more}")
                break
            copy.append(self._copy(part, secret=secret or (pair and len(copy) == 1), depth=depth + 1))
        return copy

    def _full(self, entries: int) -> bool:
        return self._bounds is not None and (entries >= self._bounds.entries or self._left <= 0)


def _hides(name: str, value: Any) -> bool:
    """Return whether a field's value is a secret because of its name. Numbers of tokens or of passed tests are not."""
    is_number = type(value) in (int, float)
    is_count = is_number and (name.lower().endswith("tokens") or (name == "pass" and abs(value) < 100_000))
    return not is_count and is_secret_name(name)


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "…"


def read_json(text: str) -> Any:
    """Return a stored value, or its text if it is not JSON: whoever can write to the database can store anything."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def shorten(text: str, limit: int, more: str = "--full") -> str:
    """Return the first `limit` characters of a text, and how many there are more. `more` says what shows them."""
    left = len(text) - limit
    return text if left <= 0 else f"{text[:limit]}… {left} more characters; {more}"
