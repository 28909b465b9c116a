"""The reference of the settings, from `Settings`."""

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
    """The names of a setting in the environment, the one that wins first."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(one) for one in alias.choices]
    return [env_var_name(name)]


def default(field: FieldInfo) -> str:
    """A setting's default as it would be written in the environment."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`" if value not in (None, "", {}) else "none"


def kind(field: FieldInfo) -> str:
    """Type and bounds in words."""
    optional = NoneType in get_args(field.annotation)
    wanted = (
        [one for one in get_args(field.annotation) if one is not NoneType] if optional else [field.annotation]
    )
    if get_origin(wanted[0]) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(wanted[0]))
    name = TYPES.get(get_origin(wanted[0]) or wanted[0], "text")
    bounds = {
        key: getattr(fact, key)
        for fact in field.metadata
        for key in ("ge", "le", "min_length", "max_length")
        if hasattr(fact, key)
    }
    if "ge" in bounds and "le" in bounds:
        return f"{name} from {bounds['ge']:,} to {bounds['le']:,}"
    if "ge" in bounds:
        return f"{name}, at least {bounds['ge']:,}"
    if "max_length" in bounds:
        return f"{name} of at most {bounds['max_length']} characters"
    return name
