"""Codec of a type: a value as JSON text, checked to come back, and the value of such a text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from agentexec.errors import UsageError
from agentexec.values.comparison import Difference, find_difference, find_secret, parts_of

MASK = "*" * 10
"""Text that pydantic writes in place of a secret."""

_UNWRITABLE = (ValueError, TypeError, RecursionError, AttributeError)
"""Errors of serialization: pydantic's own is a ValueError, and serializers of the user's raise what they like."""

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class Codec:
    """JSON text of the values of one type, and the way back.

    A text is read by the aliases of fields and by their names, so texts of both kinds come back. Texts are written in the
    form that earlier releases gave them if that comes back, because a child is known by the text of its context.

    Args:
        hint: The type, as an annotation names it.

    Raises:
        UsageError: Pydantic cannot handle the type.
    """

    def __init__(self, hint: Any = Any) -> None:
        self.hint = hint
        self.is_any = hint is Any
        """True for a codec that accepts every value."""
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(hint)
        except (PydanticUserError, NameError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"pydantic cannot handle it: {_first_line(error)}") from None

    def complete(self) -> None:
        """Resolve names within the type that were not defined when it was made. Raises UsageError."""
        if self.adapter.pydantic_complete:
            return
        try:
            self.adapter.rebuild(raise_errors=True)
        except (PydanticUserError, NameError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"pydantic cannot handle it: {_first_line(error)}") from None

    @functools.cached_property
    def accepts_none(self) -> bool:
        """True if None is a value of the type."""
        try:
            return self.validate(None) is None
        except ValidationError:
            return False

    @functools.cached_property
    def may_hold_sets(self) -> bool:
        """False if no value of the type can hold a set. True says nothing."""
        try:
            return _may_hold_sets(self.adapter.core_schema)
        except Exception:  # a type that is not defined yet
            return True

    def validate(self, value: Any) -> Any:
        """Return a value as the type. Raises ValidationError."""
        if type(value) is self.hint:
            return value
        return self.adapter.validate_python(value, by_alias=True, by_name=True)

    def load(self, text: str | bytes) -> Any:
        """Return the value of a JSON text. Raises ValidationError."""
        # Not by the adapter's own method, which only checks the two flags.
        return self.adapter.validator.validate_json(text, by_alias=True, by_name=True)

    def dump(self, value: Any, what: str) -> str:
        """Return a value of the type as JSON text.

        Args:
            value: The value, or another one that the type accepts.
            what: Subject of the error's sentence.

        Raises:
            UsageError: The value is not of the type, cannot be written as JSON, or would not come back.
        """
        text, problem = self._write(value)
        if text is not None:
            return text
        if (secret := _find_secret(value)) is not None:
            raise UsageError(
                f"{what} holds a secret in {secret or 'itself'}, which would be stored as {MASK}: pass a reference that "
                "the handler looks the secret up by, or read it from the worker's environment."
            )
        try:
            valid = self.validate(value)
        except ValidationError as error:
            raise UsageError(
                f"{what} does not fit its type {shown(self.hint)}: {first_error(error)}."
            ) from None
        # A typed dictionary drops the keys that its type does not name.
        if valid is not value and not _drops_keys(value, valid):
            text, problem = self._write(valid)
        if text is None:
            raise UsageError(f"{what} {problem}.")
        return text

    def find_difference(self, value: Any, text: str) -> Difference | None:
        """Return what would be lost of a value that is stored as a text, or None."""
        try:
            restored = self.load(text)
        except ValidationError as error:
            return Difference("", f"{first_error(error)} when it is read again")
        return find_difference(value, restored, self.hint)

    def _write(self, value: Any) -> tuple[str | None, str]:
        """Return the first form of a value that comes back, or the problem of the first form."""
        problem = ""
        for write in (self._as_before, self._by_alias, self._by_name):
            try:
                text = write(value)
                difference = self.find_difference(value, text)
            except _UNWRITABLE as error:
                problem = problem or f"cannot be written as JSON: {_explain(value, error)}"
                continue
            if difference is None:
                return text, ""
            problem = problem or f"would not come back as it is: {difference}"
        return None, problem

    def _as_before(self, value: Any) -> str:
        """Return the text that earlier releases wrote: a model by its own class and the names of its fields."""
        if isinstance(value, BaseModel):
            return value.model_dump_json(warnings=False)
        return self.adapter.dump_json(value, warnings=False).decode()

    def _by_alias(self, value: Any) -> str:
        return self.adapter.dump_json(value, by_alias=True, round_trip=True, warnings=False).decode()

    def _by_name(self, value: Any) -> str:
        return self.adapter.dump_json(value, by_alias=False, round_trip=True, warnings=False).decode()


_WITHOUT_SETS = frozenset(
    [
        "str",
        "int",
        "float",
        "bool",
        "none",
        "bytes",
        "date",
        "time",
        "datetime",
        "timedelta",
        "uuid",
        "decimal",
        "url",
        "enum",
        "literal",
        "list",
        "dict",
        "tuple",
        "nullable",
        "union",
        "tagged-union",
        "model",
        "model-fields",
        "model-field",
        "dataclass",
        "dataclass-args",
        "dataclass-field",
        "typed-dict",
        "typed-dict-field",
        "default",
        "definitions",
        "definition-ref",
    ]
)
"""Kinds of schemas whose values hold only what the schemas inside them describe."""


def _may_hold_sets(schema: Any) -> bool:
    if isinstance(schema, list | tuple):
        return any(map(_may_hold_sets, schema))
    if not isinstance(schema, dict):
        return False
    if isinstance(kind := schema.get("type"), str) and kind not in _WITHOUT_SETS:
        return True
    if "allow" in (schema.get("extra_behavior"), (schema.get("config") or {}).get("extra_fields_behavior")):
        return True
    described = {key: part for key, part in schema.items() if key not in ("metadata", "expected", "members")}
    return any(map(_may_hold_sets, described.values()))


@functools.lru_cache(maxsize=256)
def codec_of(kind: type) -> Codec:
    """Return the codec of a class. Raises UsageError if pydantic cannot handle it."""
    return Codec(kind)


def first_error(error: ValidationError) -> str:
    """Return the first problem of a validation error, as `field: problem`, without the input."""
    problem = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    return f"{field}: {problem['msg']}" if field else problem["msg"]


def shown(hint: Any) -> str:
    """Return a type as a person writes it."""
    return hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)


def _drops_keys(value: Any, valid: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(valid, Mapping) and len(valid) < len(value)


def _find_secret(value: Any) -> str | None:
    try:
        return find_secret(value)
    except RecursionError:
        return None


def _explain(value: Any, error: BaseException) -> str:
    """Return the reason why a value cannot be written, with the path to the part that is at fault."""
    try:
        path, found = next(_unwritable(value, ""), ("", error))
    except RecursionError:
        return "it is nested too deeply, or contains itself"
    reason = _first_line(found)
    return f"{path}: {reason}" if path else reason


def _unwritable(value: Any, path: str) -> Iterator[tuple[str, BaseException]]:
    """Yield the innermost parts of a value that cannot be written, with their errors."""
    for name, part in parts_of(value):
        where = f"{path}.{name}" if path else str(name)
        error = _error_of(functools.partial(_ANY.dump_json, part))
        if error is None and isinstance(value, BaseModel):
            error = _error_of(functools.partial(value.model_dump_json, include={name}))
        if error is not None:
            found = next(_unwritable(part, where), None)
            yield found or (where, error)


def _error_of(write: Callable[[], object]) -> BaseException | None:
    try:
        write()
    except _UNWRITABLE as error:
        return error
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
