"""Reference of the settings, generated from `Settings`."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from agentexec.config import Settings, env_var_name

TYPES: dict[Any, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    dict: "JSON object",
    Path: "path",
}


def render() -> str:
    parts = []
    for name, field in Settings.model_fields.items():
        facts = [kind(field), f"default {default(field)}", f"in code `ax.CONF.{name}`"]
        facts += [f"also `{other}`" for other in variables(name, field)[1:]]
        parts += [f"## {env_var_name(name)}\n", f"{field.description}\n", f"*{' · '.join(facts)}*\n"]
    return "\n".join(parts)


def variables(name: str, field: FieldInfo) -> list[str]:
    """Return the environment variables of a setting, in order of precedence."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [env_var_name(name)]


def default(field: FieldInfo) -> str:
    """Return the default of a setting as it would be written in the environment."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`" if value not in (None, "", {}) else "none"


def kind(field: FieldInfo) -> str:
    """Return type and bounds of a setting in words."""
    annotation: Any = field.annotation
    if NoneType in get_args(annotation):
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    return _within_bounds(TYPES.get(get_origin(annotation) or annotation, "text"), field)


def _within_bounds(name: str, field: FieldInfo) -> str:
    bounds = {
        key: getattr(fact, key)
        for fact in field.metadata
        for key in ("ge", "le", "max_length")
        if hasattr(fact, key)
    }
    if "ge" in bounds and "le" in bounds:
        return f"{name} from {bounds['ge']:,} to {bounds['le']:,}"
    if "ge" in bounds:
        return f"{name}, at least {bounds['ge']:,}"
    if "max_length" in bounds:
        return f"{name} of at most {bounds['max_length']} characters"
    return name
